#include "sim/play.h"

#include <algorithm>
#include <map>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/cost/ledger.h"
#include "penstock/sim/passes.h"

namespace penstock {
namespace {

/// One direction between two ranks, with the time at which it is free again.
struct Link {
  double latency = 0;
  double bytes_per_millisecond = 0;
  double free_at = 0;
};

/// Where a message goes: the stage that waits for it.
struct Message {
  std::int32_t from_rank = 0;
  std::int32_t to_stage = 0;
  MicrobatchId microbatch;
  Bytes size;
};

/// Plays rank by rank, each as far as it gets. No queue of events in the order of time is needed: a link carries what
/// one rank sends in that rank's own order, so that every time depends on earlier actions only, in whatever order the
/// ranks are visited.
class Player {
 public:
  Player(const Schedule& schedule, const Cost& cost, const Updates& updates)
      : schedule_(schedule),
        cost_(cost),
        updates_(updates),
        step_(schedule.actions.size(), 0),
        played_{std::vector<std::vector<Event>>(schedule.actions.size()), Routes(schedule),
                Arrivals(cost.stages.size(), as_size(schedule.microbatches)),
                Arrivals(cost.stages.size(), as_size(schedule.microbatches))},
        next_(schedule.actions.size(), 0),
        clock_(schedule.actions.size(), 0),
        runnable_flag_(schedule.actions.size(), 1),
        links_(schedule.actions.size()) {
    for (std::int32_t rank = schedule.ranks(); rank-- > 0;) runnable_.push_back(rank);
    for (const auto& actions : schedule.actions)
      lowered_ = lowered_ || std::any_of(actions.begin(), actions.end(),
                                         [](const Action& action) { return is_communication(action.kind); });
    for (std::size_t rank = 0; rank < schedule.actions.size(); ++rank)
      played_.events[rank].reserve(
          as_size(std::count_if(schedule.actions[rank].begin(), schedule.actions[rank].end(),
                                [](const Action& action) { return is_compute(action.kind); })));
  }

  Play run() && {
    while (!runnable_.empty()) {
      const std::int32_t rank = runnable_.back();
      runnable_.pop_back();
      entry(runnable_flag_, rank) = 0;
      run_rank(rank);
    }
    for (std::size_t rank = 0; rank < next_.size(); ++rank)
      check_invariant(next_[rank] == schedule_.actions[rank].size(), "a verified schedule came to a standstill");
    return std::move(played_);
  }

 private:
  void run_rank(std::int32_t rank) {
    const auto& actions = entry(schedule_.actions, rank);
    for (std::size_t& next = entry(next_, rank); next < actions.size(); ++next) {
      const Action& action = actions[next];
      if (is_compute(action.kind)) {
        // Neither half of an overlapped pair begins before both can, and neither passes on its result before both end.
        const bool pair = action.overlaps_next;
        const double ready = ready_time(action);
        const double both_ready = pair ? later(ready, ready_time(actions[next + 1])) : ready;
        if (both_ready == Arrivals::never) return;
        compute(rank, action, both_ready);
        if (pair) compute(rank, actions[++next], both_ready);
        deliver(rank, action);
        if (pair) deliver(rank, actions[next]);
      } else if (is_send(action.kind)) {
        send(rank, action);
      }
    }
  }

  static double later(double a, double b) {
    return a == Arrivals::never || b == Arrivals::never ? Arrivals::never : std::max(a, b);
  }

  /// When the inputs of an action are there that come from another action; what it needs of its own rank's earlier
  /// actions is there because the verifier says so.
  [[nodiscard]] double ready_time(const Action& action) const {
    switch (action.kind) {
      case ActionKind::Forward:
        return action.stage.value == 0 ? 0 : played_.inputs.at(action.stage, action.microbatch);
      case ActionKind::Backward:
      case ActionKind::InputBackward:
        return played_.gradients.at(action.stage, action.microbatch);
      default:
        return 0;
    }
  }

  void compute(std::int32_t rank, const Action& action, double ready) {
    double& clock = entry(clock_, rank);
    if (updates_.microbatches > 0) {
      const int step = action.microbatch.value / updates_.microbatches;
      if (std::exchange(entry(step_, rank), step) != step) clock += entry(updates_.milliseconds, rank);
    }
    const double start = std::max(clock, ready);
    clock = start + duration_of(entry(cost_.stages, action.stage), *pass_of(action.kind)).count;
    entry(played_.events, rank).push_back({action, {start}, {clock}});
  }

  /// Passes on what an action made, at the rank's present time.
  void deliver(std::int32_t rank, const Action& action) {
    const double clock = entry(clock_, rank);
    if (action.kind == ActionKind::WeightBackward) return;
    if (action.kind == ActionKind::Forward && action.stage.value + 1 == schedule_.stages) {
      played_.gradients.at(action.stage, action.microbatch) =
          clock;  // the loss, on the same rank and next in its order
      return;
    }
    const std::int32_t to_stage = action.stage.value + (action.kind == ActionKind::Forward ? 1 : -1);
    if (to_stage < 0) return;
    if (played_.routes.rank_of(StageId{to_stage}, action.microbatch).value == rank)
      arrive(rank, to_stage, action.kind == ActionKind::Forward, action.microbatch, clock);
    else if (!lowered_)
      transmit(rank, to_stage, action.kind == ActionKind::Forward, action.microbatch);
  }

  void send(std::int32_t rank, const Action& action) {
    const bool forward = action.kind == ActionKind::SendForward;
    transmit(rank, action.stage.value + (forward ? 1 : -1), forward, action.microbatch);
  }

  /// Sends at the rank's present time.
  void transmit(std::int32_t rank, std::int32_t to_stage, bool forward, MicrobatchId microbatch) {
    const std::int32_t to = played_.routes.rank_of(StageId{to_stage}, microbatch).value;
    Link& link = link_to(rank, to);
    const StageCost& boundary_owner = entry(cost_.stages, forward ? to_stage - 1 : to_stage);
    const double start = std::max(entry(clock_, rank), link.free_at);
    const bool has_content = forward || boundary_owner.gradient_returns;
    const double bytes = has_content ? static_cast<double>(boundary_owner.boundary.count) : 0;
    link.free_at = start + bytes / link.bytes_per_millisecond;
    arrive(to, to_stage, forward, microbatch, link.free_at + link.latency);
  }

  void arrive(std::int32_t rank, std::int32_t stage, bool forward, MicrobatchId microbatch, double time) {
    (forward ? played_.inputs : played_.gradients).at(StageId{stage}, microbatch) = time;
    if (entry(runnable_flag_, rank) != 0) return;
    if (!waits_for(rank, stage, microbatch)) return;
    entry(runnable_flag_, rank) = 1;
    runnable_.push_back(rank);
  }

  /// Whether the next action of a rank, or the other half of its pair, is of this stage and microbatch.
  [[nodiscard]] bool waits_for(std::int32_t rank, std::int32_t stage, MicrobatchId microbatch) const {
    const auto& actions = entry(schedule_.actions, rank);
    const std::size_t next = entry(next_, rank);
    if (next == actions.size()) return false;
    const auto is_of = [&](const Action& action) {
      return action.stage.value == stage && action.microbatch == microbatch;
    };
    return is_of(actions[next]) || (actions[next].overlaps_next && is_of(actions[next + 1]));
  }

  Link& link_to(std::int32_t from, std::int32_t to) {
    auto& links = entry(links_, from);
    const auto found = links.find(to);
    if (found != links.end()) return found->second;
    const LinkCost& link = link_between(cost_, RankId{from}, RankId{to});
    return links.emplace(to, Link{link.latency.count, link.bytes_per_millisecond, 0}).first->second;
  }

  const Schedule& schedule_;
  const Cost& cost_;
  const Updates& updates_;
  std::vector<int> step_;  ///< by rank, that it is at
  bool lowered_ = false;
  Play played_;
  std::vector<std::size_t> next_;  ///< by rank, the position in its actions
  std::vector<double> clock_;      ///< by rank, when it is free
  std::vector<std::int32_t> runnable_;
  std::vector<char> runnable_flag_;
  std::vector<std::map<std::int32_t, Link>> links_;  ///< by sender and receiver
};

}  // namespace

Play play(const Schedule& schedule, const Cost& cost, const Updates& updates) {
  return Player(schedule, cost, updates).run();
}

}  // namespace penstock
