#include "penstock/sim/measured_cost.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <tuple>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/base/quantile.h"

namespace penstock {
namespace {

constexpr std::size_t kinds = 4;  // of compute actions

/// A message by its way, the stage that gets it and its microbatch.
using MessageKey = std::tuple<bool, std::int32_t, std::int32_t>;

MessageKey message_of(const Action& action) {
  const bool forward = action.kind == ActionKind::SendForward || action.kind == ActionKind::ReceiveForward;
  const std::int32_t sent = is_send(action.kind) ? (forward ? 1 : -1) : 0;
  return {forward, action.stage.value + sent, action.microbatch.value};
}

/// The compute action for which a rank takes or gives a message: a message belongs to the memory of its pass.
ActionKind pass_served_by(ActionKind kind) {
  if (kind == ActionKind::SendForward || kind == ActionKind::ReceiveForward) return ActionKind::Forward;
  return is_communication(kind) ? ActionKind::InputBackward : kind;
}

/// What a rank holds more after a pass and its messages than before.
struct Growth {
  double bytes = 0;
  bool known = true;
  bool computed = false;  ///< a whole backward has the messages of an `I` and none itself
};

/// What was measured of one stage.
struct StageSamples {
  std::array<std::vector<double>, kinds> durations;  ///< by kind, ms
  std::vector<double> forward_bytes;                 ///< what a forward left behind
  std::vector<double> input_backward_bytes;          ///< and an input gradient, mostly below 0
};

class Measurements {
 public:
  explicit Measurements(const Schedule& schedule) : schedule_(schedule), stages_(as_size(schedule.stages)) {}

  void add(const Timeline& step) {
    if (step.ranks.size() != schedule_.actions.size())
      throw bad_input(fmt::format("a timeline of {} ranks", step.ranks.size()),
                      fmt::format("the {} ranks of the schedule", schedule_.ranks()),
                      "give timelines of this schedule");
    for (const auto& events : step.ranks)
      for (const Event& event : events) add_duration(event);
    add_latencies(step);
    for (std::size_t rank = 0; rank < step.memory.size(); ++rank) add_memory(step, rank);
  }

  [[nodiscard]] Cost cost() const {
    Cost cost;
    for (std::size_t stage = 0; stage < stages_.size(); ++stage) cost.stages.push_back(cost_of(stage));
    cost.default_link.latency = {std::max(median(latencies_), 0.0)};
    return cost;
  }

 private:
  void require_known(const Action& action) const {
    if (action.stage.value < 0 || action.stage.value >= schedule_.stages || action.microbatch.value < 0 ||
        action.microbatch.value >= schedule_.microbatches)
      throw bad_input(
          fmt::format("a timeline with the action {}", to_string(action)),
          fmt::format("stages below {} and microbatches below {}", schedule_.stages, schedule_.microbatches),
          "give timelines of this schedule");
  }

  void add_duration(const Event& event) {
    const Action& action = event.action;
    if (is_compute(action.kind) || is_communication(action.kind)) require_known(action);
    if (is_compute(action.kind))
      entry(stages_, action.stage).durations.at(as_index(action.kind)).push_back((event.end - event.start).count);
  }

  void add_latencies(const Timeline& step) {
    std::map<MessageKey, double> sent;
    for (const auto& events : step.ranks)
      for (const Event& event : events)
        if (is_send(event.action.kind)) sent[message_of(event.action)] = event.end.count;
    for (const auto& events : step.ranks) {
      for (const Event& event : events) {
        if (!is_communication(event.action.kind) || is_send(event.action.kind)) continue;
        const auto found = sent.find(message_of(event.action));
        if (found != sent.end() && event.start.count < found->second)
          latencies_.push_back(event.end.count - found->second);
      }
    }
  }

  void add_memory(const Timeline& step, std::size_t rank) {
    const auto& samples = step.memory[rank];
    if (samples.empty()) return;
    const auto events = rank < step.ranks.size() ? step.ranks[rank] : std::vector<Event>{};
    if (samples.size() != events.size())
      throw bad_input(fmt::format("{} memory samples of rank {}", samples.size(), rank),
                      fmt::format("one at the end of each of its {} events", events.size()), "give measured timelines");
    std::map<std::tuple<ActionKind, StageId, MicrobatchId>, Growth> passes;
    for (std::size_t index = 0; index < events.size(); ++index) {
      const Action& action = events[index].action;
      Growth& growth = passes[{pass_served_by(action.kind), action.stage, action.microbatch}];
      growth.computed = growth.computed || is_compute(action.kind);
      growth.known = growth.known && index > 0;
      if (index > 0) growth.bytes += static_cast<double>((samples[index].bytes - samples[index - 1].bytes).count);
    }
    for (const auto& [pass, growth] : passes) {
      if (!growth.known || !growth.computed) continue;
      StageSamples& stage = stages_[std::get<StageId>(pass).index()];
      if (std::get<ActionKind>(pass) == ActionKind::Forward) stage.forward_bytes.push_back(growth.bytes);
      if (std::get<ActionKind>(pass) == ActionKind::InputBackward) stage.input_backward_bytes.push_back(growth.bytes);
    }
  }

  [[nodiscard]] StageCost cost_of(std::size_t index) const {
    const StageSamples& stage = stages_[index];
    const auto durations_of = [&](ActionKind kind) -> const std::vector<double>& {
      return stage.durations.at(as_index(kind));
    };
    if (durations_of(ActionKind::Forward).empty())
      throw bad_input(fmt::format("timelines without a forward of stage {}", index), "whole steps of the schedule",
                      "measure at least one step");
    StageCost cost;
    cost.forward = {median(durations_of(ActionKind::Forward))};
    if (durations_of(ActionKind::InputBackward).empty()) {
      cost.input_backward = cost.weight_backward = {median(durations_of(ActionKind::Backward)) / 2};
    } else {
      cost.input_backward = {median(durations_of(ActionKind::InputBackward))};
      cost.weight_backward = {median(durations_of(ActionKind::WeightBackward))};
    }
    const double activation = std::max(std::round(median(stage.forward_bytes)), 0.0);
    cost.activation = {static_cast<std::int64_t>(activation)};
    if (activation > 0 && !stage.input_backward_bytes.empty())
      cost.weight_activation_share =
          std::clamp(1 + median(stage.input_backward_bytes) / activation, 0.0, largest_weight_activation_share);
    return cost;
  }

  const Schedule& schedule_;
  std::vector<StageSamples> stages_;
  std::vector<double> latencies_;
};

}  // namespace

Cost measured_cost(const std::vector<Timeline>& steps, const Schedule& schedule) {
  if (steps.empty()) throw bad_input("no timelines", "at least one measured step", "measure one");
  Measurements measurements(schedule);
  for (const Timeline& step : steps) measurements.add(step);
  return measurements.cost();
}

}  // namespace penstock
