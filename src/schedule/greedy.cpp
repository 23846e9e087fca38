#include "schedule/greedy.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

namespace penstock {
namespace {

constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();

class GreedyPlay {
 public:
  explicit GreedyPlay(const GreedyRules& rules)
      : rules_(rules),
        microbatches_(as_size(rules.microbatches)),
        forward_end_(as_size(rules.stages) * microbatches_, never),
        backward_end_(forward_end_),
        held_(as_size(rules.ranks)),
        free_from_(held_.size(), 0),
        version_(held_.size(), 0),
        rows_(held_.size()) {
    for (int stage = rules.stages; stage-- > 0;)
      for (int way = 0; way < rules.ways; ++way)
        held_.at(as_index(rules.rank_of(stage, way))).push_back({stage, way, way, way});
  }

  std::vector<std::vector<Action>> play() {
    for (int rank = 0; rank < rules_.ranks; ++rank) plan(rank);
    while (!queue_.empty()) {
      const Plan next = queue_.top();
      queue_.pop();
      if (next.version == entry(version_, next.rank)) commit(next.rank);
    }
    return std::move(rows_);
  }

 private:
  // A way's stage on its rank, and which microbatches come next there.
  struct Held {
    int stage;
    int way;
    int next_forward;
    int next_backward;
  };
  struct Plan {
    std::int64_t start;
    int rank;
    int version;
    friend bool operator>(const Plan& a, const Plan& b) {
      return std::tie(a.start, a.rank) > std::tie(b.start, b.rank);
    }
  };
  struct Choice {
    std::int64_t ready = never;
    bool forward = true;
    int microbatch = 0;
    Held* held = nullptr;
  };

  [[nodiscard]] std::size_t slot(int stage, int microbatch) const {
    return as_size(stage) * microbatches_ + as_size(microbatch);
  }

  [[nodiscard]] std::int64_t forward_ready(const Held& held) const {
    const int microbatch = held.next_forward;
    if (microbatch >= rules_.microbatches) return never;
    if (held.stage > 0) return forward_end_[slot(held.stage - 1, microbatch)];
    const int leaver = microbatch - rules_.entry_cap * rules_.ways;
    return leaver < 0 ? 0 : backward_end_[slot(0, leaver)];
  }

  [[nodiscard]] std::int64_t backward_ready(const Held& held) const {
    const int microbatch = held.next_backward;
    if (microbatch >= rules_.microbatches) return never;
    const std::int64_t own = forward_end_[slot(held.stage, microbatch)];
    if (held.stage + 1 == rules_.stages || own == never) return own;
    return backward_end_[slot(held.stage + 1, microbatch)];
  }

  // The best action among those that can start first.
  Choice choose(int rank) {
    Choice best;
    const std::int64_t free_from = entry(free_from_, rank);
    for (Held& held : entry(held_, rank)) {
      for (const bool forward : {false, true}) {
        const std::int64_t ready = forward ? forward_ready(held) : backward_ready(held);
        if (ready == never) continue;
        const Choice choice{std::max(ready, free_from), forward, forward ? held.next_forward : held.next_backward,
                            &held};
        if (std::tie(choice.ready, choice.forward, choice.microbatch) <
            std::tie(best.ready, best.forward, best.microbatch))
          best = choice;
      }
    }
    return best;
  }

  void plan(int rank) {
    const int version = ++entry(version_, rank);
    const Choice choice = choose(rank);
    if (choice.held != nullptr) queue_.push({choice.ready, rank, version});
  }

  void commit(int rank) {
    const Choice choice = choose(rank);
    check_invariant(choice.held != nullptr, "a planned action is gone");
    Held& held = *choice.held;
    const std::int64_t end = choice.ready + (choice.forward ? rules_.forward_time : rules_.backward_time);
    (choice.forward ? forward_end_ : backward_end_)[slot(held.stage, choice.microbatch)] = end;
    (choice.forward ? held.next_forward : held.next_backward) += rules_.ways;
    entry(free_from_, rank) = end;
    entry(rows_, rank)
        .push_back({choice.forward ? ActionKind::Forward : ActionKind::Backward, {held.stage}, {choice.microbatch}});
    plan(rank);
    const int neighbour = held.stage + (choice.forward ? 1 : -1);
    if (neighbour < 0 || neighbour >= rules_.stages) return;
    const int other = rules_.rank_of(neighbour, held.way);
    if (other != rank) plan(other);
  }

  const GreedyRules& rules_;
  std::size_t microbatches_;
  std::vector<std::int64_t> forward_end_;
  std::vector<std::int64_t> backward_end_;
  std::vector<std::vector<Held>> held_;
  std::vector<std::int64_t> free_from_;
  std::vector<int> version_;
  std::vector<std::vector<Action>> rows_;
  std::priority_queue<Plan, std::vector<Plan>, std::greater<>> queue_;
};

}  // namespace

std::vector<std::vector<Action>> play_greedily(const GreedyRules& rules) { return GreedyPlay(rules).play(); }

}  // namespace penstock
