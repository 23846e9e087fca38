// What the simulator says of memory beside what is counted.
#include <algorithm>
#include <gtest/gtest.h>
#include <string>

#include <ATen/ATen.h>

#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/measured_cost.h"
#include "penstock/sim/simulate.h"

namespace penstock {
namespace {

struct Peaks {
  std::vector<double> measured;   // by rank
  std::vector<double> simulated;  // with the costs of the step before

  [[nodiscard]] double most() const { return *std::max_element(measured.begin(), measured.end()); }
};

Peaks peaks_of(const std::string& name, int ranks, int microbatches, const std::vector<bool>& recompute = {},
               const Cut& cut = {}) {
  const VerifiedSchedule schedule = verify(make_schedule(name, ranks, microbatches));
  // Sixteen layers that weigh about the same: a vocabulary that makes embedding and head no heavier than a block.
  const Network network = make_gpt({32, 14, 32, 2, 32, 0, false});
  PipelineSettings settings;
  settings.threads_per_rank = 1;
  settings.recompute = recompute;
  settings.cut = cut;
  Pipeline pipeline(network, schedule, settings);
  const at::Tensor tokens = at::ones({microbatches, 32}, at::kLong);
  const Timeline before = pipeline.step(tokens, tokens, 0, 1e-3).timeline;
  const Timeline measured = pipeline.step(tokens, tokens, 1, 1e-3).timeline;
  const Timeline simulated = simulate(schedule, measured_cost({before}, schedule.get()));
  Peaks peaks;
  for (std::int32_t rank = 0; rank < ranks; ++rank) {
    peaks.measured.push_back(static_cast<double>(peak_bytes(measured, {rank}).count));
    peaks.simulated.push_back(static_cast<double>(peak_bytes(simulated, {rank}).count));
  }
  return peaks;
}

class Memory : public testing::TestWithParam<std::string> {};

TEST_P(Memory, OfEveryRankIsTheSimulatorsWithinTwoPercent) {
  for (const bool recomputed : {false, true}) {
    SCOPED_TRACE(recomputed ? "every second layer recomputed" : "nothing recomputed");
    std::vector<bool> recompute(16, false);
    for (std::size_t layer = 0; recomputed && layer < 16; layer += 2) recompute[layer] = true;
    const Peaks peaks = peaks_of(GetParam(), 4, 12, recompute);
    for (std::size_t rank = 0; rank < 4; ++rank) {
      EXPECT_GT(peaks.measured[rank], 0);
      EXPECT_NEAR(peaks.simulated[rank] / peaks.measured[rank], 1, 0.02) << "rank " << rank;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, Memory,
                         testing::Values("1f1b", "zb-h1", "zb-v", "v-half", "v-min", "interleaved-1f1b", "gpipe"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// The formulas say 2 ⌊(p + 4) / 3⌋ half stages against p whole ones: a half for 8 ranks. The rest is what autograd
// keeps between I and W, which is a little more than what it keeps before I.
TEST(Memory, OfVMinIsAboutHalfOf1F1Bs) {
  const double v_min = peaks_of("v-min", 8, 32).most();
  // Two blocks a stage, so that the first, of which most microbatches are held, weighs as much as the others.
  const double one_f_one_b = peaks_of("1f1b", 8, 32, {}, {0, 3, 5, 7, 9, 11, 13, 15}).most();
  RecordProperty("share", std::to_string(v_min / one_f_one_b));
  EXPECT_LE(v_min / one_f_one_b, 0.52);
}

}  // namespace
}  // namespace penstock
