#include <algorithm>
#include <fmt/format.h>
#include <functional>
#include <queue>

#include "penstock/base/index.h"

#include "schedule/verify_passes.h"

namespace penstock {
namespace {

// Plays the schedule without a clock: each rank goes on as long as what it needs is there.
class Player {
 public:
  Player(const Schedule& schedule, const ActionIndex& index, SendMode sends)
      : schedule_(schedule),
        index_(index),
        rendezvous_(sends == SendMode::Blocking),
        head_(schedule.actions.size()),
        waiters_(schedule.actions.size()) {}

  // True where every rank came to its end.
  bool play() {
    for (std::int32_t rank = schedule_.ranks(); rank-- > 0;) ready_.push_back(rank);
    while (!ready_.empty()) {
      const std::int32_t rank = ready_.back();
      ready_.pop_back();
      run(rank);
      wake(rank);
    }
    for (std::int32_t rank = 0; rank < schedule_.ranks(); ++rank)
      if (!at_end(rank)) return false;
    return true;
  }

  // The action that a rank stands still before, and the first thing it waits for.
  struct Wait {
    Place waiting;
    Dependency for_what;
  };
  [[nodiscard]] Wait wait_of(std::int32_t rank) const {
    for (std::int32_t position = head(rank); position < head(rank) + length_at_head(rank); ++position)
      for (const Dependency& need : dependencies_of(schedule_, index_, {rank, position}, rendezvous_))
        if (!met(need)) return {{rank, position}, need};
    return {};
  }
  [[nodiscard]] bool at_end(std::int32_t rank) const {
    return as_index(head(rank)) == entry(schedule_.actions, rank).size();
  }
  [[nodiscard]] std::int32_t head(std::int32_t rank) const { return entry(head_, rank); }

 private:
  struct Waiter {
    std::int32_t rank;
    std::int32_t until;  // the position that the other rank's head must have reached

    friend bool operator>(const Waiter& a, const Waiter& b) { return a.until > b.until; }
  };
  using Waiters = std::priority_queue<Waiter, std::vector<Waiter>, std::greater<>>;

  [[nodiscard]] static std::int32_t threshold(const Dependency& need) {
    return need.place.position + (need.reached ? 0 : 1);
  }
  [[nodiscard]] bool met(const Dependency& need) const { return head(need.place.rank) >= threshold(need); }
  [[nodiscard]] std::int32_t length_at_head(std::int32_t rank) const {
    return at(schedule_, {rank, head(rank)}).overlaps_next ? 2 : 1;
  }

  void run(std::int32_t rank) {
    while (!at_end(rank)) {
      const Wait wait = wait_of(rank);
      if (wait.waiting.exists()) {
        entry(waiters_, wait.for_what.place.rank).push({rank, threshold(wait.for_what)});
        return;
      }
      entry(head_, rank) += length_at_head(rank);
    }
  }

  void wake(std::int32_t rank) {
    auto& waiters = entry(waiters_, rank);
    while (!waiters.empty() && waiters.top().until <= head(rank)) {
      ready_.push_back(waiters.top().rank);
      waiters.pop();
    }
  }

  const Schedule& schedule_;
  const ActionIndex& index_;
  bool rendezvous_;
  std::vector<std::int32_t> head_;
  std::vector<Waiters> waiters_;
  std::vector<std::int32_t> ready_;
};

Error deadlock(const Schedule& schedule, const Player& player) {
  std::int32_t rank = 0;
  while (player.at_end(rank)) ++rank;
  // Each stuck rank waits for another stuck one, so after as many steps as there are ranks the walk is in the circle.
  for (std::int32_t step = 0; step < schedule.ranks(); ++step) rank = player.wait_of(rank).for_what.place.rank;
  std::vector<std::int32_t> circle;
  for (std::int32_t next = rank; circle.empty() || next != rank; next = player.wait_of(next).for_what.place.rank)
    circle.push_back(next);
  std::rotate(circle.begin(), std::min_element(circle.begin(), circle.end()), circle.end());
  std::string text;
  constexpr std::size_t most = 8;
  for (std::size_t i = 0; i < circle.size(); ++i) {
    if (i >= most) {
      text += fmt::format(", and so on over {}", counted(static_cast<std::int64_t>(circle.size() - most), "more rank"));
      break;
    }
    const auto [waiting, need] = player.wait_of(circle[i]);
    const Place behind{need.place.rank, player.head(need.place.rank)};
    text += fmt::format("{}{} (rank {}, position {}) waits for {} (rank {}, position {}{})", i == 0 ? "" : ", ",
                        to_string(at(schedule, waiting)), waiting.rank, waiting.position,
                        to_string(at(schedule, need.place)), need.place.rank, need.place.position,
                        behind == need.place ? "" : fmt::format(", behind {}", to_string(at(schedule, behind))));
  }
  const Place first = player.wait_of(circle.front()).waiting;
  return refusal(
      schedule, first, fmt::format("waits for itself in a circle of {}: {}", counted(std::ssize(circle), "rank"), text),
      "an order in which some rank can always go on", "move one of these actions ahead of what it waits for");
}

// What stands on the action's own rank and is needed by it must come before it, and outside of its pair.
void check_own_rank(const Schedule& schedule, const ActionIndex& index, Place place, Place start) {
  for (const Dependency& need : dependencies_of(schedule, index, place, false)) {
    if (need.place.rank != place.rank || need.place.position < start.position) continue;
    const bool pair = need.place.position <= start.position + 1 && at(schedule, start).overlaps_next;
    const std::string got = fmt::format("{} {} at position {}, which it needs", pair ? "overlaps with" : "comes before",
                                        to_string(at(schedule, need.place)), need.place.position);
    throw refusal(
        schedule, place, got, "every action after what it needs",
        pair ? std::string("take the overlap apart") : fmt::format("move it behind position {}", need.place.position));
  }
}

}  // namespace

void check_order(const Schedule& schedule, const ActionIndex& index, SendMode sends) {
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank) {
    const auto& row = entry(schedule.actions, rank);
    bool second = false;
    for (std::int32_t position = 0; position < static_cast<std::int32_t>(row.size()); ++position) {
      check_own_rank(schedule, index, {rank, position}, {rank, second ? position - 1 : position});
      second = entry(row, position).overlaps_next;
    }
  }
  Player player(schedule, index, sends);
  if (!player.play()) throw deadlock(schedule, player);
}

}  // namespace penstock
