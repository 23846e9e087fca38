// The same bits as one stage with everything that people pipeline switched on, one thing at a time.
#include <gtest/gtest.h>
#include <tuple>

#include <ATen/ATen.h>

#include "penstock/schedule/generators.h"

#include "parity/small_networks.h"

namespace penstock {
namespace {

TraceSettings few_steps(const std::string& network) {
  TraceSettings settings;
  settings.network = network;
  settings.steps = 3;
  settings.samples = 9;
  return settings;
}

std::vector<bool> recompute_all() { return std::vector<bool>(8, true); }
// Neither all, nor a whole stage, whatever the cut.
std::vector<bool> recompute_some() { return {true, false, false, true, true, false, true, false}; }

class Features : public testing::TestWithParam<std::string> {  // schedule
 protected:
  static void compare(const TraceSettings& one, const TraceSettings& cut) {
    const bool loop = GetParam() == "1f1b" || GetParam() == "zb-h1";
    const Schedule schedule = make_schedule(GetParam(), loop ? 4 : 2, cut.microbatches);
    expect_same_bits(train_small(one), train_small(cut, schedule));
  }
};

TEST_P(Features, SkipsAndTensorsOfAllKinds) { compare(few_steps("skips"), few_steps("skips")); }

TEST_P(Features, SequencesOfOtherLengthsInEveryMicrobatchAndStep) {
  TraceSettings settings = few_steps("gpt");
  settings.lengths = true;
  compare(settings, settings);
}

TEST_P(Features, PaddingMasks) {
  TraceSettings settings = few_steps("tied gpt");
  settings.masked = true;
  compare(settings, settings);
}

TEST_P(Features, RecomputationOfAllOrSomeLayersAgainstNone) {
  for (const char* network : {"gpt", "skips", "batch norm"}) {
    for (const auto& recompute : {recompute_all(), recompute_some()}) {
      SCOPED_TRACE(network);
      const TraceSettings one = few_steps(network);
      TraceSettings cut = one;
      cut.recompute = recompute;
      compare(one, cut);
    }
  }
}

TEST_P(Features, Autocast) {
  for (const Precision precision : {Precision::BFloat16, Precision::Float16}) {
    TraceSettings settings = few_steps("gpt");
    settings.precision = precision;
    TraceSettings cut = settings;
    cut.recompute = recompute_some();
    compare(settings, cut);
  }
}

TEST_P(Features, TheOptimizerThatDoesNotWait) {
  for (const double clip : {0.0, 0.05, 0.5, 100.0}) {
    SCOPED_TRACE(clip);
    TraceSettings waiting = few_steps("gpt");
    waiting.clip = clip;
    TraceSettings hoping = waiting;
    hoping.post_validation = true;
    compare(waiting, hoping);
  }
}

TEST_P(Features, BatchNormTakesTheWholeMinibatchOnce) {
  const TraceSettings settings = few_steps("batch norm");
  compare(settings, settings);
}

INSTANTIATE_TEST_SUITE_P(Schedules, Features, testing::Values("1f1b", "zb-h1", "interleaved-1f1b", "zb-v", "v-min"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(FeaturesChangeTheNumbers, SoThatTheComparisonsMeanSomething) {
  const TraceSettings plain = few_steps("gpt");
  for (auto change : {+[](TraceSettings& settings) { settings.masked = true; },
                      +[](TraceSettings& settings) { settings.lengths = true; },
                      +[](TraceSettings& settings) { settings.precision = Precision::BFloat16; }}) {
    TraceSettings changed = plain;
    change(changed);
    EXPECT_NE(train_small(plain).losses, train_small(changed).losses);
  }
}

TEST(LossScale, AGradientThatIsNotFiniteSkipsTheUpdateEverywhere) {
  // Gradients that are too large for the scale that a run begins with: it is lowered by skipping, alike on any number
  // of stages, also where ranks hope, until they fit.
  TraceSettings settings = few_steps("mlp");
  settings.precision = Precision::Float16;
  settings.loss_factor = 1000;
  settings.steps = 12;
  const Trace one = train_small(settings);
  EXPECT_GT(one.skipped, 0);
  EXPECT_LT(one.skipped, settings.steps);
  settings.stages = 4;
  expect_same_bits(one, train_small(settings));
  settings.post_validation = true;
  expect_same_bits(one, train_small(settings));
}

}  // namespace
}  // namespace penstock
