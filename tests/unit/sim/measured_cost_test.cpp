#include "penstock/sim/measured_cost.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"
#include "penstock/sim/simulate.h"

namespace penstock {
namespace {

using testing::HasSubstr;

constexpr double latency = 0.25;
constexpr std::int64_t message_bytes = 16;
constexpr std::int64_t held_before = 5000;  // parameters and the like

/// Unequal stages, the first with an input gradient of nearly no time, the others with more held after I than before.
Cost known_cost(int stages) {
  Cost cost;
  cost.default_link.latency = {latency};
  for (int stage = 0; stage < stages; ++stage) {
    StageCost stage_cost;
    stage_cost.forward = {1 + 0.25 * stage};
    stage_cost.input_backward = {stage == 0 ? 0.001 : 1.5 - 0.125 * stage};
    stage_cost.weight_backward = {0.75 + 0.5 * stage};
    stage_cost.activation = {1000 + 200 * stage};
    stage_cost.weight_activation_share = stage == 0 ? 0.5 : 1.25;
    cost.stages.push_back(stage_cost);
  }
  return cost;
}

/// What an executor would hold more after an action: a message counts on the rank that has it, and an activation holds
/// what was received and not what was sent.
std::int64_t growth_of(const Action& action, const Schedule& schedule, const Cost& cost) {
  const StageCost& stage = cost.stages[action.stage.index()];
  const auto message_at = [&](std::int32_t neighbour) {
    const bool elsewhere = neighbour >= 0 && neighbour < schedule.stages &&
                           schedule.placement.holders[static_cast<std::size_t>(neighbour)] !=
                               schedule.placement.holders[action.stage.index()];
    return elsewhere ? message_bytes : 0;
  };
  const std::int64_t activation = stage.activation.count;
  const auto for_weights = static_cast<std::int64_t>(static_cast<double>(activation) * stage.weight_activation_share);
  const std::int64_t from_before = message_at(action.stage.value - 1);
  const std::int64_t from_behind = message_at(action.stage.value + 1);
  switch (action.kind) {
    case ActionKind::Forward:
      return activation - from_before + from_behind;
    case ActionKind::Backward:
      return -activation - from_behind + from_before;
    case ActionKind::InputBackward:
      return for_weights - activation - from_behind + from_before;
    case ActionKind::WeightBackward:
      return -for_weights;
    case ActionKind::ReceiveForward:
    case ActionKind::ReceiveBackward:
      return message_bytes;
    default:
      return -message_bytes;
  }
}

/// A simulated step as the executor writes it down: with the sends and receives of the lowered schedule in their order,
/// and a sample of memory after each event. All its ranks begin at `zero`.
Timeline measured(const VerifiedSchedule& compute, const Cost& cost, double zero) {
  const VerifiedSchedule lowered = lower(compute);
  const Timeline played = simulate(compute, cost, {.record_memory = false});
  std::map<Action, Event> events;
  for (const auto& events_of_rank : played.ranks)
    for (const Event& event : events_of_rank) events[event.action] = event;
  const auto end_of = [&](ActionKind kind, std::int32_t stage, MicrobatchId microbatch) {
    for (const ActionKind candidate : {kind, kind == ActionKind::Forward ? kind : ActionKind::InputBackward})
      if (const auto found = events.find({candidate, StageId{stage}, microbatch}); found != events.end())
        return found->second.end.count;
    return -1.0;
  };
  Timeline timeline;
  for (const auto& actions : lowered->actions) {
    auto& events_of_rank = timeline.ranks.emplace_back();
    auto& samples = timeline.memory.emplace_back();
    Bytes held{held_before};
    double clock = 0;
    for (const Action& action : actions) {
      const bool forward = action.kind == ActionKind::SendForward || action.kind == ActionKind::ReceiveForward;
      Event event{action, {clock}, {clock}};
      if (is_compute(action.kind))
        event = events.at(action);
      else if (!is_send(action.kind))
        event.end.count = std::max(clock, latency + end_of(forward ? ActionKind::Forward : ActionKind::Backward,
                                                           action.stage.value + (forward ? -1 : 1), action.microbatch));
      clock = event.end.count;
      held += {growth_of(action, compute.get(), cost)};
      events_of_rank.push_back({action, {zero + event.start.count}, {zero + event.end.count}});
      samples.push_back({{zero + clock}, held});
    }
  }
  return timeline;
}

void expect_near(const Cost& found, const Cost& expected) {
  ASSERT_EQ(found.stages.size(), expected.stages.size());
  for (std::size_t stage = 0; stage < found.stages.size(); ++stage) {
    SCOPED_TRACE(testing::Message() << "stage " << stage);
    EXPECT_NEAR(found.stages[stage].forward.count, expected.stages[stage].forward.count, 1e-9);
    EXPECT_NEAR(found.stages[stage].input_backward.count, expected.stages[stage].input_backward.count, 1e-9);
    EXPECT_NEAR(found.stages[stage].weight_backward.count, expected.stages[stage].weight_backward.count, 1e-9);
    EXPECT_EQ(found.stages[stage].activation, expected.stages[stage].activation);
    EXPECT_NEAR(found.stages[stage].weight_activation_share, expected.stages[stage].weight_activation_share, 1e-9);
    EXPECT_EQ(found.stages[stage].boundary.count, 0);
  }
  EXPECT_NEAR(found.default_link.latency.count, expected.default_link.latency.count, 1e-9);
  EXPECT_TRUE(found.links.empty());
  EXPECT_NO_THROW(validate(found));
}

TEST(MeasuredCost, AStepOfAKnownCostGivesItBackAndPredictsItself) {
  for (const char* name : {"zb-h1", "zb-v", "interleaved-zb"}) {
    SCOPED_TRACE(name);
    const VerifiedSchedule schedule = verify(make_schedule(name, 4, 8));
    const Cost cost = known_cost(schedule->stages);
    const Timeline step = measured(schedule, cost, 1e4);
    const Cost found = measured_cost({step}, schedule.get());
    expect_near(found, cost);
    EXPECT_NEAR(makespan(simulate(schedule, found)).count, makespan(compute_actions(step)).count, 1e-6);
  }
}

TEST(MeasuredCost, AWholeBackwardIsSplitInHalves) {
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 3, 6));
  const Cost cost = known_cost(3);
  Cost expected = cost;
  for (StageCost& stage : expected.stages) {
    stage.input_backward = stage.weight_backward = (stage.input_backward + stage.weight_backward) * 0.5;
    stage.weight_activation_share = 1;
  }
  expect_near(measured_cost({measured(schedule, cost, 0)}, schedule.get()), expected);
}

TEST(MeasuredCost, OneDisturbedStepOfThreeDoesNotCount) {
  const VerifiedSchedule schedule = verify(make_schedule("zb-h1", 2, 4));
  const Cost cost = known_cost(2);
  Cost slow = cost;
  for (StageCost& stage : slow.stages) {
    stage.forward.count *= 7;
    stage.activation.count *= 2;
  }
  slow.default_link.latency = {3};
  const Timeline step = measured(schedule, cost, 0);
  const Timeline disturbed = measured(schedule, slow, 50);
  expect_near(measured_cost({step, disturbed, measured(schedule, cost, 99)}, schedule.get()), cost);
}

TEST(MeasuredCost, OnlyReceivesThatWaitedForTheirSendTellTheLatency) {
  using enum ActionKind;
  const auto event = [](ActionKind kind, int stage, double start, double end) {
    return Event{{kind, StageId{stage}, MicrobatchId{0}}, {start}, {end}};
  };
  const Schedule schedule = parse_schedule("0F0,0B0\n1F0,1B0\n");
  // The forward's receive waits and ends 0.5 behind its send; the backward's begins long after its own has ended.
  const Timeline step{{{event(Forward, 0, 0, 1), event(SendForward, 0, 1, 1.25), event(ReceiveBackward, 0, 9, 9.125),
                        event(Backward, 0, 9.125, 12)},
                       {event(ReceiveForward, 1, 0, 1.75), event(Forward, 1, 1.75, 3), event(Backward, 1, 3, 5),
                        event(SendBackward, 1, 5, 5.5)}}};
  EXPECT_DOUBLE_EQ(measured_cost({step}, schedule).default_link.latency.count, 0.5);
  Timeline none = step;
  none.ranks[1].erase(none.ranks[1].begin());
  EXPECT_EQ(measured_cost({none}, schedule).default_link.latency.count, 0);
}

TEST(MeasuredCost, WithoutMemoryAndBackwardsThereAreTimesOnly) {
  const VerifiedSchedule schedule = verify(make_schedule("forward-only", 2, 3));
  const Cost cost = measured_cost({simulate(schedule, known_cost(2), {.record_memory = false})}, schedule.get());
  EXPECT_EQ(cost.stages.at(1), (StageCost{{1.25}, {}, {}, {}, {}, {}, {}, {}}));
}

std::string refusal_of(const std::vector<Timeline>& steps, const Schedule& schedule) {
  try {
    static_cast<void>(measured_cost(steps, schedule));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  return "";
}

TEST(MeasuredCost, RefusesWhatIsNoStepOfTheSchedule) {
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 2, 2));
  const Timeline step = measured(schedule, known_cost(2), 0);
  EXPECT_THAT(refusal_of({}, schedule.get()), HasSubstr("no timelines"));
  EXPECT_THAT(refusal_of({{}}, schedule.get()), HasSubstr("a timeline of 0 ranks"));
  EXPECT_THAT(refusal_of({Timeline{{{}, {}}}}, schedule.get()), HasSubstr("without a forward of stage 0"));
  const VerifiedSchedule other = verify(make_schedule("1f1b", 2, 3));
  EXPECT_THAT(refusal_of({measured(other, known_cost(2), 0)}, schedule.get()), HasSubstr("the action 0F2"));
  Timeline samples = step;
  samples.memory[1].pop_back();
  EXPECT_THAT(refusal_of({samples}, schedule.get()), HasSubstr("7 memory samples of rank 1"));
}

}  // namespace
}  // namespace penstock
