// Networks of other people's kinds, drawn from a seed: one device has the numbers of plain libtorch, and every cut,
// schedule and choice of recomputation has the bits of one device. PENSTOCK_PROPERTY_CASES says how many (100),
// PENSTOCK_PROPERTY_SEED where to begin (1).
#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

#include <torch/torch.h>

#include "penstock/base/random.h"
#include "penstock/schedule/generators.h"

#include "drawn_cases.h"
#include "parity/default_dtype.h"
#include "parity/drawn_network.h"

namespace penstock {
namespace {

constexpr int steps = 2;
constexpr double learning_rate = 0.02;

struct DrawnCase {
  std::uint64_t seed = 0;
  int microbatches = 1;
  std::int64_t samples = 1;
  double clip = 0;
  std::vector<bool> recompute;
  const ScheduleFamily* family = nullptr;
  int ranks = 1;
  Cut cut;
};

DrawnCase draw_case(std::uint64_t seed) {
  std::mt19937_64 generator(mix_key({seed, 31}));
  const auto below = [&](int end) { return std::uniform_int_distribution<int>(0, end - 1)(generator); };
  DrawnCase drawn;
  drawn.seed = seed;
  drawn.microbatches = 1 + below(5);
  drawn.samples = 2 * drawn.microbatches + below(4);
  drawn.clip = below(2) == 0 ? 0.0 : 0.1;
  if (below(2) == 0)
    for (int layer = 0; layer < drawn_layers; ++layer) drawn.recompute.push_back(below(2) == 0);
  do {
    drawn.family = &schedule_families()[static_cast<std::size_t>(below(static_cast<int>(schedule_families().size())))];
  } while (drawn.family->name == "forward-only");
  drawn.ranks = drawn.family->stages_per_rank == 1 ? 2 * (below(3) + 1) : 2;
  std::vector<std::int64_t> inner(drawn_layers - 1);
  std::iota(inner.begin(), inner.end(), 1);
  std::shuffle(inner.begin(), inner.end(), generator);
  drawn.cut.assign(inner.begin(), inner.begin() + std::ptrdiff_t{drawn.ranks} * drawn.family->stages_per_rank - 1);
  drawn.cut.push_back(0);
  std::sort(drawn.cut.begin(), drawn.cut.end());
  return drawn;
}

struct Outcome {
  Trace trace;
  std::int64_t hooks = 0;
};

Outcome train(const DrawnCase& drawn, const Schedule& schedule, const Cut& cut, const std::vector<bool>& recompute) {
  const DrawnNetwork network = draw_network(drawn.seed);
  PipelineSettings settings;
  settings.seed = 3;
  settings.threads_per_rank = 1;
  settings.optimizer.kind = OptimizerKind::Sgd;
  settings.optimizer.momentum = 0.9;
  settings.optimizer.weight_decay = 0;
  settings.clip_norm = drawn.clip;
  settings.cut = cut;
  settings.recompute = recompute;
  settings.steps_in_flight = 1 + static_cast<int>(drawn.seed % 3);
  Pipeline pipeline(network.network, verify(schedule), settings);
  Outcome outcome;
  std::deque<StepHandle> in_flight;
  const auto take_first = [&] {
    const StepResult result = in_flight.front().wait();
    in_flight.pop_front();
    outcome.trace.losses.push_back(result.loss);
    outcome.trace.norms.push_back(result.gradient_norm);
    outcome.trace.by_microbatch.push_back(result.losses);
  };
  for (int step = 0; step < steps; ++step) {
    const auto minibatch = drawn_minibatch(drawn.microbatches, drawn.samples, step);
    in_flight.push_back(pipeline.submit(minibatch, {step, learning_rate, false}));
    if (std::ssize(in_flight) == settings.steps_in_flight) take_first();
  }
  while (!in_flight.empty()) take_first();
  outcome.trace.weights = pipeline.weights();
  outcome.hooks = network.hooks->load();
  return outcome;
}

void expect_within(const Trace& expected, const Trace& got, double tolerance) {
  ASSERT_EQ(expected.losses.size(), got.losses.size());
  for (std::size_t step = 0; step < expected.losses.size(); ++step) {
    EXPECT_NEAR(got.losses[step], expected.losses[step], tolerance * std::max(1.0, std::abs(expected.losses[step])));
    EXPECT_NEAR(got.norms[step], expected.norms[step], tolerance * std::max(1.0, expected.norms[step]));
  }
  ASSERT_EQ(expected.weights.size(), got.weights.size());
  for (std::size_t index = 0; index < expected.weights.size(); ++index) {
    EXPECT_EQ(expected.weights[index].first, got.weights[index].first);
    const at::Tensor wanted = expected.weights[index].second.to(at::kDouble);
    const auto difference = (wanted - got.weights[index].second).norm().item<double>();
    EXPECT_LE(difference, tolerance * std::max(1.0, wanted.norm().item<double>())) << expected.weights[index].first;
  }
}

TEST(AnyNetwork, OneDeviceHasTheNumbersOfLibtorchAndEveryCutTheBitsOfOneDevice) {
  const DefaultDtype dtype(at::kDouble);
  const std::uint64_t first = from_environment("PENSTOCK_PROPERTY_SEED", 1);
  const std::uint64_t cases = from_environment("PENSTOCK_PROPERTY_CASES", instrumented ? 8 : 100);
  for (std::uint64_t seed = first; seed < first + cases && !HasFailure(); ++seed) {
    const DrawnCase drawn = draw_case(seed);
    const DrawnNetwork network = draw_network(seed);
    SCOPED_TRACE(fmt::format(
        "PENSTOCK_PROPERTY_SEED={} PENSTOCK_PROPERTY_CASES=1: {} on {} ranks of {}, cut at {}, {} microbatches of {} "
        "samples, clip {}, {} ties, recompute {}",
        seed, network.kinds, drawn.ranks, drawn.family->name, drawn.cut, drawn.microbatches, drawn.samples, drawn.clip,
        network.network.ties.size(), drawn.recompute));
    const Trace plain =
        train_plainly(network.network, drawn.microbatches, drawn.samples, steps, learning_rate, drawn.clip);
    const std::int64_t hooks = network.hooks->load();
    const Outcome one = train(drawn, make_schedule("1f1b", 1, drawn.microbatches), {}, {});
    expect_within(plain, one.trace, 1e-10);
    EXPECT_EQ(one.hooks, hooks);
    const Outcome cut =
        train(drawn, make_schedule(drawn.family->name, drawn.ranks, drawn.microbatches), drawn.cut, drawn.recompute);
    EXPECT_EQ(cut.hooks, hooks);
    // Of a stage that two ranks hold, each adds up its own microbatches first.
    if (drawn.family->bidirectional)
      expect_within(one.trace, cut.trace, 1e-10);
    else
      expect_same_bits(one.trace, cut.trace);
  }
}

}  // namespace
}  // namespace penstock
