// The bubble that synthesis reaches against the published heuristics of arXiv 2401.10241, with bound and time.
#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "penstock/base/types.h"
#include "penstock/synthesis/synthesise.h"

namespace penstock {
namespace {

struct Row {
  int ranks;
  int microbatches;
  std::array<double, 4> times;      // F, I, W and link of a whole stage
  std::array<double, 3> published;  // cap p, cap 2p, V with cap p
};

constexpr std::array rows{
    Row{8, 24, {18.522, 18.086, 9.337, 0.601}, {0.1585, 0.0433, 0.0703}},
    Row{8, 32, {18.513, 18.086, 9.331, 0.626}, {0.1242, 0.0039, 0.0543}},
    Row{8, 24, {29.718, 29.444, 19.927, 0.527}, {0.1323, 0.0029, 0.0403}},
    Row{32, 64, {1, 1.3, 0.7, 0.05}, {0.2252, 0.1363, 0.1251}},
};

void measure(const Row& row, std::size_t column, double share) {
  const bool v = column == 2;
  const int stages_per_rank = v ? 2 : 1;
  StageCost stage;
  stage.forward = {row.times[0] / stages_per_rank};
  stage.input_backward = {row.times[1] / stages_per_rank};
  stage.weight_backward = {row.times[2] / stages_per_rank};
  stage.weight_activation_share = share;
  SynthesisSettings settings;
  settings.ranks = row.ranks;
  settings.microbatches = row.microbatches;
  settings.placement = v ? v_placement(row.ranks) : loop_placement(row.ranks, row.ranks);
  settings.memory_caps = {column == 0 ? row.ranks : 2 * row.ranks};
  const SteadyClock clock;
  const Milliseconds start = clock.now();
  const Synthesis found =
      synthesise(settings, uniform_cost(row.ranks * stages_per_rank, stage, {{row.times[3]}}), clock);
  const Milliseconds took = clock.now() - start;
  const double busy = busy_time(found.timeline, RankId{0}).count;
  const double bubble = bubble_span(found.timeline);
  fmt::print("| {:>2}, {:>2} | {:<8} | {:>5} | {:.4f} | {:.4f} | {:.4f} | {:.2f} s |\n", row.ranks, row.microbatches,
             column == 0   ? "cap p"
             : column == 1 ? "cap 2p"
                           : "V, cap p",
             share, row.published[column], bubble, 1 - busy / found.lower_bound.count, took.count / 1000);
}

}  // namespace
}  // namespace penstock

int main() {
  fmt::print(
      "| p, m | caps | kept from I to W | published bubble | found | lower bound | time "
      "|\n|---|---|---|---|---|---|---|\n");
  for (const penstock::Row& row : penstock::rows)
    for (const std::size_t column : {0U, 1U, 2U})
      for (const double share : {1.0, 0.366}) penstock::measure(row, column, share);
}
