#include "sim/contended_play.h"

#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/cost/ledger.h"
#include "penstock/sim/passes.h"

#include "sim/messages.h"

namespace penstock {
namespace {

/// Plays in the order of time. All ranks that compute are equally fast, and their speed changes whenever one begins or
/// ends: how much each has computed since the beginning of the step, had it never waited, is one number for all, and a
/// pass ends when that number has grown by its cost.
class ContendedPlayer {
 public:
  ContendedPlayer(const Schedule& schedule, const Cost& cost, const Updates& updates)
      : schedule_(schedule),
        cost_(cost),
        updates_(updates),
        messages_(schedule, cost),
        events_(room_for_events(schedule)),
        ranks_(schedule.actions.size()) {}

  Play run() && {
    for (std::int32_t rank = 0; rank < schedule_.ranks(); ++rank) go_on(rank);
    while (!ends_.empty() || !begins_.empty()) {
      const double end =
          ends_.empty() ? std::numeric_limits<double>::infinity() : now_ + (ends_.top().first - computed_) / speed();
      if (!begins_.empty() && begins_.top().first <= end) {
        const auto [time, rank] = begins_.top();
        begins_.pop();
        computed_ += (time - now_) * speed();
        now_ = time;
        begin(rank, duration_of_next(rank));
      } else {
        const auto [computed, rank] = ends_.top();
        ends_.pop();
        computed_ = computed;
        now_ = end;
        finish(rank);
      }
    }
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      check_invariant(ranks_[rank].next == schedule_.actions[rank].size(), "a verified schedule came to a standstill");
    return std::move(messages_).play(std::move(events_));
  }

 private:
  struct Rank {
    std::size_t next = 0;  ///< the position in its actions
    int step = 0;          ///< that it is at
    bool waits = false;    ///< for what the next action needs
    bool updates = false;  ///< rather than computing the next action
    double begun = 0;
  };
  /// A time or an amount, and the rank that it is about.
  using Due = std::pair<double, std::int32_t>;
  using DueFirst = std::priority_queue<Due, std::vector<Due>, std::greater<>>;

  /// How much a rank computes in a millisecond; 1 while all do.
  [[nodiscard]] double speed() const {
    const auto computing = static_cast<double>(ends_.size());
    if (computing == 0) return 1;
    const double share = (computing - 1) / static_cast<double>(ranks_.size() - 1);
    return cost_.contention / (1 + (cost_.contention - 1) * share);
  }

  [[nodiscard]] double duration_of_next(std::int32_t rank) const {
    const Action& action = entry(schedule_.actions, rank)[entry(ranks_, rank).next];
    return duration_of(entry(cost_.stages, action.stage), *pass_of(action.kind)).count;
  }

  void begin(std::int32_t rank, double duration) {
    entry(ranks_, rank).begun = now_;
    ends_.emplace(computed_ + duration, rank);
  }

  /// What `Messages` calls.
  [[nodiscard]] auto arrivals() {
    return [this](std::int32_t rank, StageId stage, MicrobatchId microbatch) { arrive(rank, stage, microbatch); };
  }

  /// Of a rank that has nothing to do: up to its next pass, or until it waits.
  void go_on(std::int32_t rank) {
    Rank& state = entry(ranks_, rank);
    const auto& actions = entry(schedule_.actions, rank);
    for (; state.next < actions.size(); ++state.next) {
      const Action& action = actions[state.next];
      if (is_send(action.kind)) messages_.send(rank, action, now_, arrivals());
      if (!is_compute(action.kind)) continue;
      state.updates = updates_.come_before(action, state.step);
      return state.updates ? begin(rank, entry(updates_.milliseconds, rank)) : begin_when_ready(rank);
    }
  }

  void begin_when_ready(std::int32_t rank) {
    Rank& state = entry(ranks_, rank);
    const double ready = messages_.ready_time(entry(schedule_.actions, rank), state.next);
    state.waits = ready == Arrivals::never;
    if (!state.waits) begins_.emplace(std::max(ready, now_), rank);
  }

  void finish(std::int32_t rank) {
    Rank& state = entry(ranks_, rank);
    if (std::exchange(state.updates, false)) return begin_when_ready(rank);
    const auto& actions = entry(schedule_.actions, rank);
    const Action& action = actions[state.next];
    entry(events_, rank).push_back({action, {state.begun}, {now_}});
    const bool ends_pair = state.next > 0 && actions[state.next - 1].overlaps_next;
    ++state.next;
    // The other half of a pair follows at once, and neither passes on its result before both end.
    if (action.overlaps_next) return begin(rank, duration_of_next(rank));
    if (ends_pair) messages_.deliver(rank, actions[state.next - 2], now_, arrivals());
    messages_.deliver(rank, action, now_, arrivals());
    go_on(rank);
  }

  void arrive(std::int32_t rank, StageId stage, MicrobatchId microbatch) {
    const Rank& state = entry(ranks_, rank);
    if (state.waits && waits_for(entry(schedule_.actions, rank), state.next, stage, microbatch)) begin_when_ready(rank);
  }

  const Schedule& schedule_;
  const Cost& cost_;
  const Updates& updates_;
  Messages messages_;
  std::vector<std::vector<Event>> events_;
  std::vector<Rank> ranks_;
  double now_ = 0;
  double computed_ = 0;  ///< by each rank that has computed all the time
  DueFirst ends_;        ///< by what will have been computed
  DueFirst begins_;      ///< by time, of ranks that know when they go on
};

}  // namespace

Play contended_play(const Schedule& schedule, const Cost& cost, const Updates& updates) {
  return ContendedPlayer(schedule, cost, updates).run();
}

}  // namespace penstock
