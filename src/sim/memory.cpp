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

/// All that a rank takes and gives back in a step. Its own actions are in the order of time; the departures of messages
/// are nearly so, and are kept apart to be sorted and merged.
class Ledger {
 public:
  Ledger(const Schedule& schedule, const Cost& cost, const Play& played, RankId rank)
      : schedule_(schedule), cost_(cost), played_(played), rank_(rank) {
    bool second_of_pair = false;
    for (const Event& event : played.events[rank.index()]) {
      at_start_ = at_end_ = 0;
      enter(event);
      // Of a pair that overlaps one runs after the other.
      const double middle = event.start.count + (event.end - event.start).count / 2;
      const double start = second_of_pair ? middle : event.start.count;
      const double end = event.action.overlaps_next ? middle : event.end.count;
      if (at_start_ != 0) own_.push_back({start, at_start_});
      if (at_end_ != 0) own_.push_back({end, at_end_});
      second_of_pair = event.action.overlaps_next;
    }
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
        at_start_ += activation;
        take_over(action, action.stage.value - 1);
        during(stage.forward_workspace.count);
        if (schedule_.forward_only) at_end_ -= activation;
        send(played_.inputs, event, action.stage.value + 1);
        break;
      case ActionKind::Backward:
      case ActionKind::InputBackward:
        during((action.kind == ActionKind::Backward ? stage.backward_workspace : stage.input_workspace).count);
        during(boundary(action.stage.value, action.stage.value + 1));
        take_over(action, action.stage.value + 1);
        if (action.kind == ActionKind::Backward) at_end_ -= activation;
        if (action.kind == ActionKind::Backward) take_gradient(action);
        if (action.kind == ActionKind::InputBackward) at_end_ += for_weights - activation;
        send(played_.gradients, event, action.stage.value - 1);
        break;
      case ActionKind::WeightBackward:
        during(stage.weight_workspace.count);
        at_end_ -= for_weights;
        take_gradient(action);
        break;
      default:
        break;
    }
  }

  [[nodiscard]] bool exists(std::int32_t stage) const { return stage >= 0 && stage < schedule_.stages; }

  [[nodiscard]] bool elsewhere(std::int32_t stage, MicrobatchId microbatch) const {
    return played_.routes.rank_of(StageId{stage}, microbatch) != rank_;
  }

  /// What passes between two neighbouring stages; nothing beyond the ends.
  [[nodiscard]] std::int64_t boundary(std::int32_t stage, std::int32_t neighbour) const {
    return exists(neighbour) ? cost_.stages[static_cast<std::size_t>(std::min(stage, neighbour))].boundary.count : 0;
  }

  /// What a stage of the same rank left for this action is from now on a part of what the action holds.
  void take_over(const Action& action, std::int32_t from_stage) {
    if (exists(from_stage) && !elsewhere(from_stage, action.microbatch))
      at_start_ -= boundary(action.stage.value, from_stage);
  }

  void send(const Arrivals& arrivals, const Event& event, std::int32_t to_stage) {
    const Action& action = event.action;
    const std::int64_t size = boundary(action.stage.value, to_stage);
    if (size == 0) return;
    at_end_ += size;
    if (!elsewhere(to_stage, action.microbatch)) return;
    const RankId to = played_.routes.rank_of(StageId{to_stage}, action.microbatch);
    const double left =
        arrivals.at(StageId{to_stage}, action.microbatch) - link_between(cost_, rank_, to).latency.count;
    messages_.push_back({left, -size});
  }

  /// They stay from a stage's first gradients to the update.
  void take_gradient(const Action& action) {
    if (has_gradient_[action.stage.index()]) return;
    has_gradient_[action.stage.index()] = true;
    during(cost_.stages[action.stage.index()].gradient_at_peak.count);
    at_end_ += cost_.stages[action.stage.index()].gradient.count;
  }

  /// Held while the present event lasts.
  void during(std::int64_t bytes) {
    at_start_ += bytes;
    at_end_ -= bytes;
  }

  const Schedule& schedule_;
  const Cost& cost_;
  const Play& played_;
  RankId rank_;
  std::vector<bool> has_gradient_ = std::vector<bool>(cost_.stages.size());  ///< by stage
  std::int64_t at_start_ = 0;                                                ///< of the present event
  std::int64_t at_end_ = 0;
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
