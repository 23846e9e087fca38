#include "penstock/sim/simulate.h"

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <random>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"
#include "penstock/sim/passes.h"

#include "unit/schedule/player.h"

namespace penstock {
namespace {

using testing::HasSubstr;

StageCost stage_of(double forward, double input_backward, double weight_backward) {
  return {{forward}, {input_backward}, {weight_backward}, {}, {}, {}, {}, {}};
}

/// The start and end of an action, found by its text.
std::pair<double, double> times_of(const Timeline& timeline, const std::string& text) {
  for (const auto& events : timeline.ranks)
    for (const Event& event : events)
      if (to_string(event.action) == text) return {event.start.count, event.end.count};
  ADD_FAILURE() << "no " << text;
  return {};
}

void expect_times(const Timeline& timeline, const std::map<std::string, std::pair<double, double>>& expected) {
  for (const auto& [action, times] : expected) EXPECT_EQ(times_of(timeline, action), times) << action;
}

Timeline simulate_named(const std::string& name, int ranks, int microbatches, const StageCost& stage,
                        const LinkCost& link = {}) {
  const VerifiedSchedule schedule = verify(make_schedule(name, ranks, microbatches));
  return simulate(schedule, uniform_cost(schedule->stages, stage, link));
}

/// A schedule of stages that are unequal, with links that are slow and unequal, drawn from `seed`.
Cost random_cost(const Schedule& schedule, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> time(1, 5);
  std::uniform_int_distribution<std::int64_t> size(0, 1000);
  Cost cost;
  for (int stage = 0; stage < schedule.stages; ++stage)
    cost.stages.push_back({{time(random)},
                           {time(random)},
                           {time(random)},
                           {size(random)},
                           {size(random)},
                           {size(random)},
                           {size(random)},
                           {size(random)}});
  for (int from = 0; from < schedule.ranks(); ++from)
    for (int to = 0; to < schedule.ranks(); ++to)
      cost.links[{RankId{from}, RankId{to}}] = {{time(random) / 10}, 100 * time(random)};
  return cost;
}

TEST(Simulate, TwoUnequalStagesByHand) {
  // 0: F0 F1       B0       B1        Stage 0: F 1, I 2, W 1. Stage 1: F 3, I 1, W 1.
  // 1:    F0 B0 F1 B1                 Link: 0.5 latency, 4 bytes at 8 bytes/ms = 0.5 on the link.
  const VerifiedSchedule schedule = verify(parse_schedule("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"));
  Cost cost = uniform_cost(2, stage_of(1, 2, 1), {{0.5}, 8});
  cost.stages[1] = stage_of(3, 1, 1);
  cost.stages[0].boundary = {4};
  const Timeline timeline = simulate(schedule, cost);
  expect_times(timeline, {{"0F1", {1.0, 2.0}},
                          {"1F0", {2.0, 5.0}},
                          {"1B0", {5.0, 7.0}},
                          {"1F1", {7.0, 10.0}},
                          {"0B0", {8.0, 11.0}},
                          {"1B1", {10.0, 12.0}},
                          {"0B1", {13.0, 16.0}}});
  EXPECT_DOUBLE_EQ(makespan(timeline).count, 16);
}

TEST(Simulate, WhereNoGradientReturnsTheWayBackIsAMessageWithoutContent) {
  const VerifiedSchedule schedule = verify(parse_schedule("0F0,0B0\n1F0,1B0\n"));
  Cost cost = uniform_cost(2, stage_of(1, 1, 1), {{0.5}, 8});
  cost.stages[0].boundary = {80};
  EXPECT_EQ(times_of(simulate(schedule, cost), "0B0"), std::pair(1 + 10.5 + 3 + 10.5, 27.0));
  cost.stages[0].gradient_returns = false;
  EXPECT_EQ(parse_cost(to_json(cost)), cost);
  EXPECT_EQ(times_of(simulate(schedule, cost), "0B0"), std::pair(1 + 10.5 + 3 + 0.5, 17.0));
}

TEST(Simulate, AShareAboveOneTakesMemoryAtTheEndOfI) {
  StageCost stage = stage_of(1, 1, 1);
  stage.activation = {100};
  stage.weight_activation_share = 1.5;
  const Timeline timeline = simulate(verify(parse_schedule("0F0,0I0,0W0\n")), uniform_cost(1, stage));
  EXPECT_EQ(timeline.memory.at(0), (std::vector<MemorySample>{{{0}, {100}}, {{2}, {150}}, {{3}, {0}}}));
}

TEST(Simulate, ALinkCarriesOneMessageAtATimeAndLatencyOverlaps) {
  // Forwards end at 1, 2, 3 and each takes the link for 4: messages leave at 1, 5, 9 and are there 4 + 2 later.
  const VerifiedSchedule schedule = verify(make_schedule("gpipe", 2, 3));
  Cost cost = uniform_cost(2, stage_of(1, 1, 1), {{2}, 1});
  cost.stages[0].boundary = {4};
  const Timeline timeline = simulate(schedule, cost);
  EXPECT_EQ(times_of(timeline, "1F0").first, 7);
  EXPECT_EQ(times_of(timeline, "1F1").first, 11);
  EXPECT_EQ(times_of(timeline, "1F2").first, 15);
}

TEST(Simulate, TheTwoDirectionsOfALinkDoNotHinderEachOther) {
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 2, 8));
  Cost both = uniform_cost(2, stage_of(1, 1, 1));
  both.links[{RankId{0}, RankId{1}}] = {{10}, 1};
  Cost cost = both;
  cost.stages[0].boundary = {1};
  // Backward messages of one byte cross an unlimited link beside the slow one: only the forward is slowed, by a byte
  // each.
  EXPECT_DOUBLE_EQ(times_of(simulate(schedule, cost), "1F0").first,
                   times_of(simulate(schedule, both), "1F0").first + 1);
  EXPECT_DOUBLE_EQ(times_of(simulate(schedule, cost), "0B0").first, times_of(simulate(schedule, cost), "1B0").second);
}

TEST(Simulate, BubblesOfTheClassicSchedulesAreThoseOfTheirPapers) {
  for (const int p : {2, 3, 4, 8, 16}) {
    for (const int m : {p, 2 * p, 4 * p + 1}) {
      for (const char* name : {"gpipe", "1f1b"}) {
        const Timeline timeline = simulate_named(name, p, m, stage_of(1, 1, 1));
        const double idle = 3.0 * (p - 1);
        EXPECT_DOUBLE_EQ(makespan(timeline).count, 3.0 * m + idle) << name << " " << p << " " << m;
        EXPECT_NEAR(bubble_makespan(timeline), idle / (3.0 * m + idle), 1e-12);
        EXPECT_NEAR(bubble_makespan(timeline), (p - 1.0) / (m + p - 1), 1e-12);
      }
      EXPECT_EQ(peak_activations(simulate_named("1f1b", p, m, stage_of(1, 1, 1)), RankId{0}), std::min(p, m));
      EXPECT_EQ(peak_activations(simulate_named("gpipe", p, m, stage_of(1, 1, 1)), RankId{p - 1}), m);
      EXPECT_NEAR(utilisation(simulate_named("naive", p, m, stage_of(1, 1, 1))), 1.0 / p, 1e-12);
    }
  }
}

TEST(Simulate, ScalingAllTimesScalesTheTimeline) {
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 5, 11));
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Cost cost = random_cost(schedule.get(), seed);
    Cost scaled = cost;
    for (StageCost& stage : scaled.stages)
      for (Milliseconds* time : {&stage.forward, &stage.input_backward, &stage.weight_backward}) time->count *= 4;
    for (auto& [pair, link] : scaled.links) {
      link.latency.count *= 4;
      link.bytes_per_millisecond /= 4;
    }
    const Timeline one = simulate(schedule, cost);
    const Timeline four = simulate(schedule, scaled);  // a power of two: exact in binary
    for (std::size_t rank = 0; rank < one.ranks.size(); ++rank) {
      for (std::size_t event = 0; event < one.ranks[rank].size(); ++event)
        ASSERT_EQ(one.ranks[rank][event].end.count * 4, four.ranks[rank][event].end.count);
      EXPECT_EQ(peak_bytes(one, RankId{static_cast<int>(rank)}), peak_bytes(four, RankId{static_cast<int>(rank)}));
    }
  }
}

TEST(Simulate, EqualInputGivesAnEqualTimelineAndLoweringChangesNothing) {
  for (const ScheduleFamily& family : schedule_families()) {
    const VerifiedSchedule schedule = verify(make_schedule(family.name, 4, 9));
    for (unsigned seed = 0; seed < 10; ++seed) {
      const Cost cost = random_cost(schedule.get(), seed);
      EXPECT_EQ(simulate(schedule, cost), simulate(schedule, cost)) << family.name << " seed " << seed;
      EXPECT_EQ(simulate(schedule, cost), simulate(lower(schedule), cost)) << family.name << " seed " << seed;
    }
  }
}

/// When each F, B and I of each stage and microbatch ended, by its text.
std::map<std::string, double> ends_of(const Timeline& timeline) {
  std::map<std::string, double> ends;
  for (const auto& events : timeline.ranks) {
    for (const Event& event : events) {
      Action action = event.action;
      if (action.kind == ActionKind::InputBackward) action.kind = ActionKind::Backward;
      ends[to_string(action)] = event.end.count;
    }
  }
  return ends;
}

TEST(Simulate, EveryActionWaitsForItsInputsAndItsRank) {
  for (const ScheduleFamily& family : schedule_families()) {
    const VerifiedSchedule schedule = verify(make_schedule(family.name, 4, 10));
    for (unsigned seed = 0; seed < 5; ++seed) {
      SCOPED_TRACE(testing::Message() << family.name << " seed " << seed);
      const Timeline timeline = simulate(schedule, random_cost(schedule.get(), seed));
      const auto ends = ends_of(timeline);
      for (const auto& events : timeline.ranks) {
        double clock = 0;
        for (const Event& event : events) {
          ASSERT_GE(event.start.count, clock);
          clock = event.end.count;
          Action input = event.action;
          if (input.kind == ActionKind::WeightBackward) continue;
          input.stage.value += input.kind == ActionKind::Forward ? -1 : 1;
          if (input.kind == ActionKind::InputBackward) input.kind = ActionKind::Backward;
          input.overlaps_next = false;
          if (input.stage.value < 0 || input.stage.value >= schedule->stages) continue;
          ASSERT_GE(event.start.count, ends.at(to_string(input)));
        }
      }
    }
  }
}

TEST(Simulate, AnOverlappedPairIsOneAction) {
  // Rank 0 overlaps 0F1 with 0B0, whose gradient comes at 4: the pair waits for it, and 1F1 for the pair.
  const VerifiedSchedule schedule = verify(parse_schedule("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1B0,1F1,1B1\n"));
  const Timeline timeline = simulate(schedule, uniform_cost(2, stage_of(1, 1, 1)));
  EXPECT_EQ(times_of(timeline, "0F1"), std::pair(4.0, 5.0));
  EXPECT_EQ(times_of(timeline, "0B0"), std::pair(5.0, 7.0));
  EXPECT_EQ(times_of(timeline, "1F1"), std::pair(7.0, 8.0));
}

double most_waiting(const Timeline& timeline) {
  double most = 0;
  for (std::int32_t rank = 0; rank < static_cast<std::int32_t>(timeline.ranks.size()); ++rank)
    most = std::max(most, span(timeline, RankId{rank}).count - busy_time(timeline, RankId{rank}).count);
  return most;
}

TEST(Simulate, BubblesOfLaterSchedulesAreThoseOfTheirPapers) {
  // Times that are not alike, so that T_F, T_B and T_W cannot stand in for each other.
  const double f = 4;
  const double b = 5;
  const double w = 3;
  for (const int p : {2, 4, 8, 16}) {
    for (const int m : {2 * p, 4 * p}) {
      SCOPED_TRACE(testing::Message() << "p " << p << " m " << m);
      EXPECT_DOUBLE_EQ(most_waiting(simulate_named("1f1b", p, m, stage_of(f, b, w))), (p - 1) * (f + b + w));
      EXPECT_DOUBLE_EQ(most_waiting(simulate_named("interleaved-1f1b", p, m, stage_of(f, b, w))),
                       (p - 1) * (f + b + w));
      EXPECT_DOUBLE_EQ(most_waiting(simulate_named("zb-h1", p, m, stage_of(f, b, w))), (p - 1) * (f + b - w));
      EXPECT_DOUBLE_EQ(most_waiting(simulate_named("zb-h2", p, m, stage_of(1, 1, 1))), 0);
      EXPECT_DOUBLE_EQ(most_waiting(simulate_named("zb-v", p, m, stage_of(1, 1, 1))), 0);
      // (p/2 - 1)(F&B + B - 3W) and (p - 1)(F&B + B - 3W), with F&B = 3, B = 2 and W = 1 of a stage.
      EXPECT_DOUBLE_EQ(most_waiting(simulate_named("dualpipe", p, m, stage_of(1, 1, 1))), p - 2);
      EXPECT_DOUBLE_EQ(most_waiting(simulate_named("dualpipev", p, m, stage_of(1, 1, 1))), 2 * (p - 1));
      EXPECT_DOUBLE_EQ(bubble_span(simulate_named("zb-v", p, m, stage_of(1, 1, 1))), 0);
      EXPECT_GT(bubble_makespan(simulate_named("zb-v", p, m, stage_of(1, 1, 1))), 0);
    }
  }
}

// The generators' tests hold every family against its paper with a plain player of their own; this holds the simulator
// against that player, and its peaks against the verifier's count.
TEST(Simulate, PlaysEveryGeneratorAsThePlainPlayerDoes) {
  for (const ScheduleFamily& family : schedule_families()) {
    for (const int p : {2, 3, 4, 8, 16}) {
      if (p % family.ranks_multiple != 0) continue;
      for (const int m : {p, 2 * p, 4 * p + 1}) {
        SCOPED_TRACE(testing::Message() << family.name << " p=" << p << " m=" << m);
        const VerifiedSchedule schedule = verify(make_schedule(family.name, p, m));
        const Played plain = play(schedule.get());
        const Timeline timeline = simulate(schedule, uniform_cost(schedule->stages, stage_of(1, 1, 1)));
        EXPECT_EQ(makespan(timeline).count, plain.makespan);
        const std::vector<int> peaks = peak_activations(schedule.get());
        for (std::int32_t rank = 0; rank < p; ++rank) {
          const auto index = static_cast<std::size_t>(rank);
          EXPECT_EQ(busy_time(timeline, {rank}).count, plain.busy[index]);
          EXPECT_EQ(span(timeline, {rank}).count, plain.busy[index] + plain.waiting[index]);
          // While it runs a forward holds its own, even where no backward follows.
          EXPECT_EQ(peak_activations(timeline, {rank}), family.name == "forward-only" ? 1 : peaks[index]);
        }
      }
    }
  }
}

TEST(Simulate, MemoryOverTimeByHand) {
  // One byte sizes that differ: activation 100 and 200, boundary 10, parameters 1000, gradients 2000, optimizer 4000.
  const VerifiedSchedule schedule = verify(make_schedule("gpipe", 2, 1));
  Cost cost = uniform_cost(2, {{1}, {1}, {1}, {100}, {10}, {1000}, {2000}, {4000}}, {{2}, 5});
  cost.stages[1].activation = {200};
  const Timeline timeline = simulate(schedule, cost);
  // 0: F ends at 1, on the link 1–3, there at 5; 1: F 5–6, B 6–8, on the link 8–10, there at 12; 0: B 12–14.
  // Gradients are there from the end of the first backward on.
  const std::vector<MemorySample> first = {{{0}, {5100}}, {{1}, {5110}}, {{3}, {5100}}, {{12}, {5110}}, {{14}, {7000}}};
  const std::vector<MemorySample> second = {{{0}, {5000}}, {{5}, {5200}}, {{8}, {7010}}, {{10}, {7000}}};
  EXPECT_EQ(timeline.memory.at(0), first);
  EXPECT_EQ(timeline.memory.at(1), second);
  EXPECT_EQ(peak_bytes(timeline, RankId{1}).count, 7010);
}

TEST(Simulate, MemoryEndsWhereItStood) {
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 4, 10));
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Cost cost = random_cost(schedule.get(), seed);
    const Timeline timeline = simulate(schedule, cost);
    for (std::size_t rank = 0; rank < timeline.memory.size(); ++rank) {
      const StageCost& stage = cost.stages[rank];
      EXPECT_EQ(timeline.memory[rank].back().bytes, stage.parameter + stage.gradient + stage.optimizer);
    }
    const Timeline bare = simulate(schedule, cost, {.record_memory = false});
    EXPECT_EQ(bare.ranks, timeline.ranks);
    EXPECT_TRUE(bare.memory.empty());
  }
}

// What an action takes counts beside the gradient that it came for: 1F1B's rank 0 in its steady state.
TEST(Simulate, WorkspaceAndArrivedGradientAreHeldTogether) {
  StageCost stage = stage_of(1, 1, 1);
  stage.activation = {100};
  stage.boundary = {10};
  stage.forward_workspace = {7};
  stage.backward_workspace = {70};
  const Timeline timeline = simulate_named("1f1b", 2, 4, stage);
  EXPECT_EQ(peak_bytes(timeline, RankId{0}).count, 2 * 100 + 70 + 10);
  EXPECT_EQ(peak_bytes(timeline, RankId{1}).count, 100 + 70);
}

TEST(Simulate, MemoryIsInTheOrderOfTime) {
  for (const ScheduleFamily& family : schedule_families()) {
    const VerifiedSchedule schedule = verify(make_schedule(family.name, 4, 8));
    for (unsigned seed = 0; seed < 5; ++seed) {
      SCOPED_TRACE(testing::Message() << family.name << " seed " << seed);
      Cost cost = random_cost(schedule.get(), seed);
      for (StageCost& stage : cost.stages) {
        stage.boundary = {10};
        stage.forward_workspace = {7};
        stage.backward_workspace = {70};
      }
      for (const auto& samples : simulate(schedule, cost).memory)
        EXPECT_TRUE(std::is_sorted(samples.begin(), samples.end(), [](const MemorySample& a, const MemorySample& b) {
          return a.time.count < b.time.count;
        }));
    }
  }
}

TEST(Simulate, WorkspaceIsHeldWhileAnActionRuns) {
  StageCost stage = stage_of(1, 1, 1);
  stage.activation = {100};
  stage.parameter = {10};
  stage.forward_workspace = {5};
  stage.backward_workspace = {70};
  const auto peak = [&](const std::string& name, int microbatches) {
    return peak_bytes(simulate_named(name, 1, microbatches, stage), RankId{0}).count;
  };
  EXPECT_EQ(peak("1f1b", 1), 10 + 100 + 70);
  EXPECT_EQ(peak("gpipe", 3), 10 + 300 + 70);
  stage.input_workspace = {80};
  EXPECT_EQ(peak("zb-h1", 2), 10 + 100 + 80);
  stage.weight_workspace = {90};
  EXPECT_EQ(peak("zb-h1", 2), 10 + 100 + 90);
  stage.gradient = {60};
  stage.gradient_at_peak = {20};
  EXPECT_EQ(peak("1f1b", 1), 10 + 100 + 70 + 20) << "the first backward makes the gradients";
  stage.forward_workspace = {500};
  EXPECT_EQ(peak("gpipe", 3), 10 + 300 + 500);
}

TEST(Simulate, RefusesACostThatDoesNotFitTheSchedule) {
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 2, 2));
  const auto refusal = [&](const Cost& cost) -> std::string {
    try {
      static_cast<void>(simulate(schedule, cost));
      return "accepted";
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_THAT(refusal(uniform_cost(3, stage_of(1, 1, 1))), HasSubstr("3 stages; expected the 2 stages"));
  Cost cost = uniform_cost(2, stage_of(1, 1, 1));
  cost.links[{RankId{0}, RankId{2}}] = {};
  EXPECT_THAT(refusal(cost), HasSubstr("a link from rank 0 to rank 2"));
  cost = uniform_cost(2, stage_of(1, 1, 1));
  cost.memory_caps = {{1}};
  EXPECT_THAT(refusal(cost), HasSubstr("memory caps for 1 rank;"));
  cost = uniform_cost(2, stage_of(1, 1, 1));
  cost.stages[1].forward = {-1};
  EXPECT_THAT(refusal(cost), HasSubstr("stages[1].forward_ms is -1"));
}

TEST(Simulate, FiveHundredRanksAndFourThousandMicrobatches) {
  const Timeline timeline = simulate_named("1f1b", 512, 4096, stage_of(1, 1, 1));
  EXPECT_DOUBLE_EQ(makespan(timeline).count, 3.0 * (4096 + 511));
  EXPECT_EQ(peak_activations(timeline, RankId{0}), 512);
}

/// How much a rank computes in a millisecond while so many do, by the law that `Cost::contention` is documented with.
double speed_while(int computing, int ranks, double contention) {
  return contention / (1 + (contention - 1) * (computing - 1) / (ranks - 1));
}

TEST(Contention, ThoseThatComputeAloneAreFastestByHand) {
  // Alone each pass of 3 takes 2. 0: F0 from 0 to 2, F1 from 2 on beside 1's F0: both take 3.
  const VerifiedSchedule schedule = verify(parse_schedule("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"));
  Cost cost = uniform_cost(2, stage_of(3, 1.5, 1.5));
  cost.contention = 1.5;
  const Timeline timeline = simulate(schedule, cost);
  expect_times(timeline, {{"0F0", {0.0, 2.0}},
                          {"0F1", {2.0, 5.0}},
                          {"1F0", {2.0, 5.0}},
                          {"1B0", {5.0, 7.0}},
                          {"0B0", {7.0, 10.0}},
                          {"1F1", {7.0, 10.0}},
                          {"1B1", {10.0, 12.0}},
                          {"0B1", {12.0, 14.0}}});
}

TEST(Contention, OneAtATimeIsAsManyTimesFaster) {
  const VerifiedSchedule schedule = verify(make_schedule("naive", 4, 6));
  Cost cost = uniform_cost(4, stage_of(1, 1, 1));
  const double together = makespan(simulate(schedule, cost)).count;
  cost.contention = 1.6;
  EXPECT_NEAR(makespan(simulate(schedule, cost)).count, together / 1.6, 1e-9);
}

TEST(Contention, NextToNoneIsNoneForEverySchedule) {
  for (const ScheduleFamily& family : schedule_families()) {
    const VerifiedSchedule schedule = verify(make_schedule(family.name, 4, 9));
    for (unsigned seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(testing::Message() << family.name << " seed " << seed);
      Cost cost = random_cost(schedule.get(), seed);
      const Timeline none = simulate(schedule, cost);
      cost.contention = 1 + 1e-12;
      const Timeline little = simulate(schedule, cost);
      for (std::size_t rank = 0; rank < none.ranks.size(); ++rank) {
        ASSERT_EQ(none.ranks[rank].size(), little.ranks[rank].size());
        for (std::size_t event = 0; event < none.ranks[rank].size(); ++event) {
          EXPECT_EQ(none.ranks[rank][event].action, little.ranks[rank][event].action);
          EXPECT_NEAR(none.ranks[rank][event].start.count, little.ranks[rank][event].start.count, 1e-6);
          EXPECT_NEAR(none.ranks[rank][event].end.count, little.ranks[rank][event].end.count, 1e-6);
        }
        // Memory changes at the same times too.
        EXPECT_EQ(peak_bytes(none, RankId{static_cast<int>(rank)}), peak_bytes(little, RankId{static_cast<int>(rank)}));
      }
      EXPECT_EQ(little, simulate(lower(schedule), cost));
    }
  }
}

/// Every pass takes what its cost says at the speeds of all moments from its begin to its end, whoever else computes.
TEST(Contention, EveryPassComputesWhatItCosts) {
  for (const ScheduleFamily& family : schedule_families()) {
    const VerifiedSchedule schedule = verify(make_schedule(family.name, 4, 6));
    for (unsigned seed = 0; seed < 5; ++seed) {
      SCOPED_TRACE(testing::Message() << family.name << " seed " << seed);
      Cost cost = random_cost(schedule.get(), seed);
      cost.contention = 1.2 + 0.3 * seed;
      const Timeline timeline = simulate(schedule, cost);
      std::map<double, int> changes;  // by time, of how many compute
      for (const auto& events : timeline.ranks)
        for (const Event& event : events) {
          ++changes[event.start.count];
          --changes[event.end.count];
        }
      const auto computed_in = [&](const Event& event) {
        double computed = 0;
        double before = 0;
        int computing = 0;
        for (const auto& [time, change] : changes) {
          const double from = std::max(before, event.start.count);
          const double to = std::min(time, event.end.count);
          if (to > from) computed += (to - from) * speed_while(computing, 4, cost.contention);
          computing += change;
          before = time;
        }
        return computed;
      };
      for (const auto& events : timeline.ranks)
        for (const Event& event : events)
          EXPECT_NEAR(computed_in(event),
                      duration_of(cost.stages[event.action.stage.index()], *pass_of(event.action.kind)).count, 1e-6)
              << to_string(event.action);
      cost.contention = 1;
      const double uncontended = makespan(simulate(schedule, cost)).count;
      EXPECT_LE(makespan(timeline).count, uncontended + 1e-9);
      EXPECT_GE(makespan(timeline).count, uncontended / (1.2 + 0.3 * seed) - 1e-9);
    }
  }
}

}  // namespace
}  // namespace penstock
