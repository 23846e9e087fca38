#include <algorithm>
#include <cmath>

#include "sim/play.h"

namespace penstock {
namespace {

/// At `time` a rank takes `bytes`, or gives them back where they are negative.
struct Change {
  double time;
  std::int64_t bytes;
};

bool earlier(const Change& a, const Change& b) { return a.time < b.time; }

/// All that a rank takes and gives back in a step. Its own actions are in the order of time; the arrivals and
/// departures of messages are nearly so, and are kept apart to be sorted and merged.
class Ledger {
 public:
  Ledger(const Schedule& schedule, const Cost& cost, const Play& played, RankId rank)
      : schedule_(schedule), cost_(cost), played_(played), rank_(rank) {
    for (const Event& event : played.events[rank.index()]) enter(event);
    std::stable_sort(messages_.begin(), messages_.end(), earlier);
  }

  /// \param held by the rank all the time.
  [[nodiscard]] std::vector<MemorySample> samples(Bytes held) const {
    std::vector<Change> changes(own_.size() + messages_.size());
    std::merge(own_.begin(), own_.end(), messages_.begin(), messages_.end(), changes.begin(), earlier);
    std::vector<MemorySample> samples{{{0}, held}};
    for (const Change& change : changes) {
      held.count += change.bytes;
      // What happens at one instant counts once, after all of it: what one action lets go of, the next may take.
      if (samples.back().time.count == change.time)
        samples.back().bytes = held;
      else
        samples.push_back({{change.time}, held});
    }
    return samples;
  }

 private:
  void enter(const Event& event) {
    const Action& action = event.action;
    const StageCost& stage = cost_.stages[action.stage.index()];
    const std::int64_t activation = stage.activation.count;
    const std::int64_t for_weights = std::llround(static_cast<double>(activation) * stage.weight_activation_share);
    switch (action.kind) {
      case ActionKind::Forward:
        own(event.start, activation);
        workspace(event, stage.forward_workspace);
        if (schedule_.forward_only) own(event.end, -activation);
        send(played_.inputs, event, action.stage.value + 1);
        break;
      case ActionKind::Backward:
      case ActionKind::InputBackward:
        workspace(event, stage.backward_workspace);
        receive(event, action.stage.value + 1);
        if (action.kind == ActionKind::Backward) own(event.end, -activation);
        if (action.kind == ActionKind::Backward) take_gradient(event);
        if (action.kind == ActionKind::InputBackward) own(event.end, for_weights - activation);
        send(played_.gradients, event, action.stage.value - 1);
        break;
      case ActionKind::WeightBackward:
        workspace(event, stage.backward_workspace);
        own(event.end, -for_weights);
        take_gradient(event);
        break;
      default:
        break;
    }
  }

  [[nodiscard]] bool elsewhere(std::int32_t stage, MicrobatchId microbatch) const {
    return stage >= 0 && stage < schedule_.stages && played_.routes.rank_of(StageId{stage}, microbatch) != rank_;
  }

  /// What passes between two neighbouring stages.
  [[nodiscard]] std::int64_t boundary(std::int32_t stage, std::int32_t neighbour) const {
    return cost_.stages[static_cast<std::size_t>(std::min(stage, neighbour))].boundary.count;
  }

  /// The gradient that a backward uses. What a forward uses is a part of the activation.
  void receive(const Event& event, std::int32_t from_stage) {
    if (!elsewhere(from_stage, event.action.microbatch)) return;
    const std::int64_t size = boundary(event.action.stage.value, from_stage);
    own(event.start, size);
    own(event.end, -size);
  }

  void send(const Arrivals& arrivals, const Event& event, std::int32_t to_stage) {
    const Action& action = event.action;
    if (!elsewhere(to_stage, action.microbatch)) return;
    const std::int64_t size = boundary(action.stage.value, to_stage);
    const RankId to = played_.routes.rank_of(StageId{to_stage}, action.microbatch);
    own(event.end, size);
    message(arrivals.at(StageId{to_stage}, action.microbatch) - link_between(cost_, rank_, to).latency.count, -size);
  }

  /// They stay from a stage's first gradients to the update.
  void take_gradient(const Event& event) {
    if (has_gradient_[event.action.stage.index()]) return;
    has_gradient_[event.action.stage.index()] = true;
    own(event.end, cost_.stages[event.action.stage.index()].gradient.count);
  }

  void workspace(const Event& event, Bytes size) {
    own(event.start, size.count);
    own(event.end, -size.count);
  }

  void own(Milliseconds time, std::int64_t bytes) {
    if (bytes != 0) own_.push_back({time.count, bytes});
  }
  void message(double time, std::int64_t bytes) {
    if (bytes != 0) messages_.push_back({time, bytes});
  }

  const Schedule& schedule_;
  const Cost& cost_;
  const Play& played_;
  RankId rank_;
  std::vector<bool> has_gradient_ = std::vector<bool>(cost_.stages.size());  ///< by stage
  std::vector<Change> own_;
  std::vector<Change> messages_;
};

}  // namespace

std::vector<std::vector<MemorySample>> memory_of(const Schedule& schedule, const Cost& cost, const Play& played) {
  std::vector<Bytes> standing(schedule.actions.size());
  for (std::size_t stage = 0; stage < cost.stages.size(); ++stage) {
    const StageCost& size = cost.stages[stage];
    for (const RankId holder : schedule.placement.holders[stage]) {
      standing[holder.index()] += size.parameter;
      if (!schedule.forward_only) standing[holder.index()] += size.optimizer;
    }
  }
  std::vector<std::vector<MemorySample>> memory;
  memory.reserve(standing.size());
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
    memory.push_back(Ledger(schedule, cost, played, {rank}).samples(standing[static_cast<std::size_t>(rank)]));
  return memory;
}

}  // namespace penstock
