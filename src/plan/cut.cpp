#include <algorithm>
#include <fmt/format.h>
#include <limits>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/plan/plan.h"

namespace penstock {
namespace {

void check_counts(std::int64_t layers, int stages) {
  if (stages < 1) throw bad_input(counted(stages, "stage"), "at least 1", "raise `stages`");
  if (stages > layers)
    throw bad_input(fmt::format("{} for {}", counted(stages, "stage"), counted(layers, "layer")),
                    "at most one stage a layer", "lower `stages` or raise `layers`");
}

}  // namespace

Cut uniform_cut(std::int64_t layers, int stages) {
  check_counts(layers, stages);
  Cut cut;
  for (std::int64_t stage = 0; stage < stages; ++stage) cut.push_back((stage * layers + stages / 2) / stages);
  return cut;
}

Cut balanced_cut(const std::vector<std::int64_t>& weights, int stages) {
  const auto layers = static_cast<std::int64_t>(weights.size());
  check_counts(layers, stages);
  std::vector<std::int64_t> sum(weights.size() + 1, 0);
  for (std::size_t layer = 0; layer < weights.size(); ++layer) sum[layer + 1] = sum[layer] + weights[layer];
  const auto count = as_size(layers);
  // heaviest[s][i]: the lightest possible heaviest stage when the layers from i on make s + 1 stages.
  std::vector<std::vector<std::int64_t>> heaviest(as_size(stages), std::vector<std::int64_t>(count + 1));
  auto next_start = heaviest;
  for (std::size_t first = 0; first < count; ++first) heaviest[0][first] = sum[count] - sum[first];
  for (std::size_t more = 1; more < heaviest.size(); ++more) {
    for (std::size_t first = 0; first + more < count; ++first) {
      heaviest[more][first] = std::numeric_limits<std::int64_t>::max();
      for (std::size_t next = first + 1; next + more <= count; ++next) {
        const std::int64_t candidate = std::max(sum[next] - sum[first], heaviest[more - 1][next]);
        if (candidate >= heaviest[more][first]) continue;
        heaviest[more][first] = candidate;
        next_start[more][first] = static_cast<std::int64_t>(next);
      }
    }
  }
  Cut cut{0};
  for (std::size_t more = heaviest.size() - 1; more > 0; --more) cut.push_back(entry(next_start[more], cut.back()));
  return cut;
}

Cut cut_of(const CutChoice& choice, std::int64_t layers, int stages) {
  check_invariant(choice.kind() == CutChoice::Uniform || choice.kind() == CutChoice::Explicit,
                  "a cut that is still to be chosen");
  if (choice.kind() == CutChoice::Uniform) return uniform_cut(layers, stages);
  check_counts(layers, stages);
  const auto refuse = [&](const std::string& why) {
    return bad_input(fmt::format("the cut \"{}\" {}", shortened(to_text(choice)), why),
                     fmt::format("uniform, parameters, or {} ascending layer numbers from 1 to {} with commas between",
                                 stages - 1, layers - 1),
                     "change `cut` or `stages`");
  };
  Cut cut{0};
  for (const std::int64_t first_layer : choice.first_layers()) {
    if (first_layer >= layers) throw refuse(fmt::format("cuts before layer {}", first_layer));
    cut.push_back(first_layer);
  }
  if (cut.size() != as_size(stages)) throw refuse("makes " + counted(std::ssize(cut), "stage"));
  return cut;
}

CutChoice choice_of(const Cut& cut) { return CutChoice::before({cut.begin() + 1, cut.end()}); }

}  // namespace penstock
