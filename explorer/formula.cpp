#include "formula.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace penstock::explorer {
namespace {

/// The sizes and times that the formulas speak of.
struct Terms {
  double p = 1;
  double m = 1;
  double v = 1;
  double forward = 0;
  double input = 0;
  double weight = 0;

  [[nodiscard]] double all() const { return forward + input + weight; }
};

struct Formula {
  std::string_view family;
  std::string_view words;
  std::string_view condition;
  double (*idle)(const Terms&) = nullptr;   ///< of a rank, in ms
  double (*share)(const Terms&) = nullptr;  ///< of the step, where the formula is none of a time
};

double one_block(const Terms& t) { return (t.p - 1) * t.all(); }
double zero_bubble(const Terms& t) { return (t.p - 1) * (t.forward + t.input - t.weight); }
double overlapped(const Terms& t) { return t.all() + t.input + t.weight - 3 * t.weight; }

constexpr std::array formulas{
    Formula{"naive", "1 − 1/p", "", nullptr, [](const Terms& t) { return 1 - 1 / t.p; }},
    Formula{"forward-only", "0", "", [](const Terms&) { return 0.0; }},
    Formula{"gpipe", "(p − 1)(T_F + T_B + T_W)", "", one_block},
    Formula{"1f1b", "(p − 1)(T_F + T_B + T_W)", "", one_block},
    Formula{"interleaved-1f1b", "(p − 1)(T_F + T_B + T_W)", "where p divides m", one_block},
    Formula{"looped-bfs", "(p − 1)(T_F + T_B + T_W)", "for m ≥ p", one_block},
    Formula{"chimera", "(p − 2)/(2m + p − 2)", "for T_F = T_B + T_W and even m", nullptr,
            [](const Terms& t) { return (t.p - 2) / (2 * t.m + t.p - 2); }},
    Formula{"hanayo", "(2p − 2)/(3pw + p − 1), w = v/2", "for m = p, an upper bound", nullptr,
            [](const Terms& t) { return (2 * t.p - 2) / (3 * t.p * t.v / 2 + t.p - 1); }},
    Formula{"zb-h1", "(p − 1)(T_F + T_B − T_W)", "for m ≥ p", zero_bubble},
    Formula{"zb-h2", "(p − 1)(T_F + T_B − 2T_W)", "for m ≥ 2p − 1",
            [](const Terms& t) { return (t.p - 1) * (t.forward + t.input - 2 * t.weight); }},
    Formula{"interleaved-zb", "(p − 1)(T_F + T_B − T_W)", "in equal times", zero_bubble},
    Formula{"zb-v", "0", "for T_F = T_B = T_W and m ≥ 2p − 1", [](const Terms&) { return 0.0; }},
    Formula{"v-half", "about p(T_F + T_B + T_W)", "", [](const Terms& t) { return t.p * t.all(); }},
    Formula{"v-min", "about 4p(T_F + T_B + T_W)/3", "", [](const Terms& t) { return 4 * t.p * t.all() / 3; }},
    Formula{"dualpipe", "(p/2 − 1)(F&B + B − 3T_W)", "for even m ≥ 2p",
            [](const Terms& t) { return (t.p / 2 - 1) * overlapped(t); }},
    Formula{"dualpipev", "(p − 1)(F&B + B − 3T_W)", "for m ≥ 2p",
            [](const Terms& t) { return (t.p - 1) * overlapped(t); }},
};

}  // namespace

std::optional<BubbleFormula> bubble_formula(const std::string& family, int ranks, int microbatches, int stages_per_rank,
                                            const StageCost& stage) {
  const auto* const found =
      std::find_if(formulas.begin(), formulas.end(), [&](const Formula& formula) { return formula.family == family; });
  if (found == formulas.end()) return std::nullopt;
  const Terms terms{static_cast<double>(ranks), static_cast<double>(microbatches), static_cast<double>(stages_per_rank),
                    stage.forward.count,        stage.input_backward.count,        stage.weight_backward.count};
  BubbleFormula formula{std::string(found->words), std::nullopt, 0, false, std::string(found->condition)};
  if (found->share != nullptr) {
    formula.share = found->share(terms);
    formula.of_makespan = true;
    return formula;
  }
  // Beyond equal times a formula may promise less than nothing.
  const double idle = std::max(0.0, found->idle(terms));
  formula.idle = Milliseconds{idle};
  const double busy = terms.m * terms.v * terms.all();
  formula.share = idle + busy > 0 ? idle / (idle + busy) : 0;
  return formula;
}

}  // namespace penstock::explorer
