// Every published schedule, by interpretation alone, against one stage: the same bits, and within rounding where a
// stage has two copies, whose gradients are added in another order.
#include <algorithm>
#include <gtest/gtest.h>
#include <tuple>

#include <ATen/ATen.h>

#include "penstock/schedule/generators.h"

#include "drawn_cases.h"
#include "parity/small_networks.h"

namespace penstock {
namespace {

using ScheduleAndNetwork = std::tuple<std::string_view, std::string>;  // schedule, network

class EverySchedule : public testing::TestWithParam<ScheduleAndNetwork> {};

TEST_P(EverySchedule, GivesTheNumbersOfOneStage) {
  const auto& [name, network] = GetParam();
  const auto families = schedule_families();
  const auto family = std::find_if(families.begin(), families.end(), [&](const auto& f) { return f.name == name; });
  ASSERT_NE(family, families.end());
  const int ranks = family->stages_per_rank == 1 ? 4 : 2;
  // Fewer microbatches than stages, more, and as many; and a minibatch that does not divide by them.
  for (const auto& [microbatches, samples] : {std::pair{2, 8}, {9, 20}, {4, 8}}) {
    if (instrumented && microbatches == 4) break;
    SCOPED_TRACE(testing::Message() << microbatches << " microbatches of " << samples << " samples");
    TraceSettings one;
    one.network = network;
    // AdamW divides by what may be next to nothing, which makes much of the last bits.
    one.optimizer = family->bidirectional ? "sgd" : "adamw";
    one.microbatches = microbatches;
    one.samples = samples;
    one.steps = 2;
    const Trace oracle = train_small(one);
    const Trace cut = train_small(one, make_schedule(name, ranks, microbatches));
    if (family->bidirectional)
      expect_close(oracle, cut);
    else
      expect_same_bits(oracle, cut);
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, EverySchedule,
                         testing::Combine(testing::ValuesIn(trained_families()),
                                          testing::Values("gpt", "tied gpt", "convnet", "skips")),
                         [](const auto& instance) {
                           std::string name =
                               std::string(std::get<0>(instance.param)) + "_" + std::get<1>(instance.param);
                           std::replace_if(name.begin(), name.end(), [](char c) { return c == ' ' || c == '-'; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace penstock
