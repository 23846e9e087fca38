/// \file
/// What actions pass on to other stages, and the links on which it travels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "penstock/base/index.h"
#include "penstock/cost/cost.h"
#include "penstock/schedule/routes.h"

#include "sim/play.h"

namespace penstock {

/// Every message of a play. A link carries what one rank sends in that rank's own order, so that the ranks may be
/// played in any order that keeps each rank's own.
class Messages {
 public:
  Messages(const Schedule& schedule, const Cost& cost)
      : cost_(cost),
        last_stage_(schedule.stages - 1),
        routes_(schedule),
        inputs_(cost.stages.size(), as_size(schedule.microbatches)),
        gradients_(inputs_),
        links_(schedule.actions.size()) {
    for (const auto& actions : schedule.actions)
      lowered_ = lowered_ || std::any_of(actions.begin(), actions.end(),
                                         [](const Action& action) { return is_communication(action.kind); });
  }

  /// When the inputs of an action are there that come from another action, or `Arrivals::never` if that is not known
  /// yet; what it needs of its own rank's earlier actions is there because the verifier says so.
  [[nodiscard]] double ready_time(const Action& action) const {
    switch (action.kind) {
      case ActionKind::Forward:
        return action.stage.value == 0 ? 0 : inputs_.at(action.stage, action.microbatch);
      case ActionKind::Backward:
      case ActionKind::InputBackward:
        return gradients_.at(action.stage, action.microbatch);
      default:
        return 0;
    }
  }

  /// The same of an action or, if it overlaps the next, of both: neither half begins before both can.
  [[nodiscard]] double ready_time(const std::vector<Action>& actions, std::size_t next) const {
    const double ready = ready_time(actions[next]);
    if (!actions[next].overlaps_next) return ready;
    const double other = ready_time(actions[next + 1]);
    return ready == Arrivals::never || other == Arrivals::never ? Arrivals::never : std::max(ready, other);
  }

  /// Passes on at `now` what a compute action of `rank` has made. \param arrives called with the rank that it goes to,
  /// the stage and the microbatch.
  template <class Arrives>
  void deliver(std::int32_t rank, const Action& action, double now, const Arrives& arrives) {
    if (action.kind == ActionKind::WeightBackward) return;
    const bool forward = action.kind == ActionKind::Forward;
    if (forward && action.stage.value == last_stage_) {
      gradients_.at(action.stage, action.microbatch) = now;  // the loss, on the same rank and next in its order
      return;
    }
    const StageId to_stage{action.stage.value + (forward ? 1 : -1)};
    if (to_stage.value < 0) return;
    const std::int32_t to = routes_.rank_of(to_stage, action.microbatch).value;
    if (to != rank && lowered_) return;
    (forward ? inputs_ : gradients_).at(to_stage, action.microbatch) =
        to == rank ? now : transmit(rank, to, to_stage, forward, now);
    arrives(to, to_stage, action.microbatch);
  }

  /// Does a `SEND` of a lowered schedule at `now`.
  template <class Arrives>
  void send(std::int32_t rank, const Action& action, double now, const Arrives& arrives) {
    const bool forward = action.kind == ActionKind::SendForward;
    const StageId to_stage{action.stage.value + (forward ? 1 : -1)};
    const std::int32_t to = routes_.rank_of(to_stage, action.microbatch).value;
    (forward ? inputs_ : gradients_).at(to_stage, action.microbatch) = transmit(rank, to, to_stage, forward, now);
    arrives(to, to_stage, action.microbatch);
  }

  /// The whole play, with its events.
  [[nodiscard]] Play play(std::vector<std::vector<Event>> events) && {
    return {std::move(events), std::move(routes_), std::move(inputs_), std::move(gradients_)};
  }

 private:
  /// One direction between two ranks, with the time at which it is free again.
  struct Link {
    double latency = 0;
    double bytes_per_millisecond = 0;
    double free_at = 0;
  };

  /// When a message arrives that leaves as soon as the link is free.
  [[nodiscard]] double transmit(std::int32_t from, std::int32_t to, StageId to_stage, bool forward, double now) {
    Link& link = link_to(from, to);
    const StageCost& boundary_owner = entry(cost_.stages, forward ? to_stage.value - 1 : to_stage.value);
    const bool has_content = forward || boundary_owner.gradient_returns;
    const double bytes = has_content ? static_cast<double>(boundary_owner.boundary.count) : 0;
    link.free_at = std::max(now, link.free_at) + bytes / link.bytes_per_millisecond;
    return link.free_at + link.latency;
  }

  Link& link_to(std::int32_t from, std::int32_t to) {
    auto& links = entry(links_, from);
    const auto found = links.find(to);
    if (found != links.end()) return found->second;
    const LinkCost& link = link_between(cost_, RankId{from}, RankId{to});
    return links.emplace(to, Link{link.latency.count, link.bytes_per_millisecond, 0}).first->second;
  }

  const Cost& cost_;
  std::int32_t last_stage_;
  bool lowered_ = false;
  Routes routes_;
  Arrivals inputs_;
  Arrivals gradients_;
  std::vector<std::map<std::int32_t, Link>> links_;  ///< by sender and receiver
};

/// An empty list of events for each rank, with room for its compute actions.
[[nodiscard]] inline std::vector<std::vector<Event>> room_for_events(const Schedule& schedule) {
  std::vector<std::vector<Event>> events(schedule.actions.size());
  for (std::size_t rank = 0; rank < events.size(); ++rank)
    events[rank].reserve(as_size(std::count_if(schedule.actions[rank].begin(), schedule.actions[rank].end(),
                                               [](const Action& action) { return is_compute(action.kind); })));
  return events;
}

}  // namespace penstock
