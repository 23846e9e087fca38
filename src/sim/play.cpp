#include "sim/play.h"

#include <algorithm>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/cost/ledger.h"
#include "penstock/sim/passes.h"

#include "sim/contended_play.h"
#include "sim/messages.h"

namespace penstock {
namespace {

/// Plays rank by rank, each as far as it gets. No queue of events in the order of time is needed: every time depends on
/// earlier actions only, in whatever order the ranks are visited.
class Player {
 public:
  Player(const Schedule& schedule, const Cost& cost, const Updates& updates)
      : schedule_(schedule),
        cost_(cost),
        updates_(updates),
        step_(schedule.actions.size(), 0),
        messages_(schedule, cost),
        events_(room_for_events(schedule)),
        next_(schedule.actions.size(), 0),
        clock_(schedule.actions.size(), 0),
        runnable_flag_(schedule.actions.size(), 1) {
    for (std::int32_t rank = schedule.ranks(); rank-- > 0;) runnable_.push_back(rank);
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
    return std::move(messages_).play(std::move(events_));
  }

 private:
  void run_rank(std::int32_t rank) {
    const auto wake = [&](std::int32_t to, StageId stage, MicrobatchId microbatch) { arrive(to, stage, microbatch); };
    const auto& actions = entry(schedule_.actions, rank);
    for (std::size_t& next = entry(next_, rank); next < actions.size(); ++next) {
      const Action& action = actions[next];
      if (is_compute(action.kind)) {
        const bool pair = action.overlaps_next;
        const double ready = messages_.ready_time(actions, next);
        if (ready == Arrivals::never) return;
        compute(rank, action, ready);
        if (pair) compute(rank, actions[++next], ready);
        // Neither half of a pair passes on its result before both end.
        messages_.deliver(rank, action, entry(clock_, rank), wake);
        if (pair) messages_.deliver(rank, actions[next], entry(clock_, rank), wake);
      } else if (is_send(action.kind)) {
        messages_.send(rank, action, entry(clock_, rank), wake);
      }
    }
  }

  void compute(std::int32_t rank, const Action& action, double ready) {
    double& clock = entry(clock_, rank);
    if (updates_.come_before(action, entry(step_, rank))) clock += entry(updates_.milliseconds, rank);
    const double start = std::max(clock, ready);
    clock = start + duration_of(entry(cost_.stages, action.stage), *pass_of(action.kind)).count;
    entry(events_, rank).push_back({action, {start}, {clock}});
  }

  void arrive(std::int32_t rank, StageId stage, MicrobatchId microbatch) {
    if (entry(runnable_flag_, rank) != 0) return;
    if (!waits_for(entry(schedule_.actions, rank), entry(next_, rank), stage, microbatch)) return;
    entry(runnable_flag_, rank) = 1;
    runnable_.push_back(rank);
  }

  const Schedule& schedule_;
  const Cost& cost_;
  const Updates& updates_;
  std::vector<int> step_;  ///< by rank, that it is at
  Messages messages_;
  std::vector<std::vector<Event>> events_;
  std::vector<std::size_t> next_;  ///< by rank, the position in its actions
  std::vector<double> clock_;      ///< by rank, when it is free
  std::vector<std::int32_t> runnable_;
  std::vector<char> runnable_flag_;
};

}  // namespace

bool waits_for(const std::vector<Action>& actions, std::size_t next, StageId stage, MicrobatchId microbatch) {
  if (next == actions.size()) return false;
  const auto is_of = [&](const Action& action) { return action.stage == stage && action.microbatch == microbatch; };
  return is_of(actions[next]) || (actions[next].overlaps_next && is_of(actions[next + 1]));
}

Play play(const Schedule& schedule, const Cost& cost, const Updates& updates) {
  if (cost.contention > 1 && schedule.ranks() > 1) return contended_play(schedule, cost, updates);
  return Player(schedule, cost, updates).run();
}

}  // namespace penstock
