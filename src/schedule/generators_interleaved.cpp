#include <algorithm>
#include <vector>

#include "penstock/base/index.h"
#include "penstock/schedule/generators.h"

#include "schedule/generator_base.h"

namespace penstock {
namespace {

// A rank of a looped pipeline works on one group of microbatches in its first stage, then on the same ones in the next.
// The groups are of p microbatches, or, where p does not divide m, as even as they get and not smaller: a group below p
// would come to a rank's next stage before its first microbatch is back from the other ranks.
class LoopOrder {
 public:
  LoopOrder(int ranks, int stages_per_rank, int microbatches) : ranks_(ranks), last_loop_(stages_per_rank - 1) {
    const int groups = std::max(1, microbatches / ranks);
    steps_.reserve(as_size(stages_per_rank) * as_size(microbatches));
    for (int group = 0, first = 0; group < groups; ++group) {
      const int size = microbatches / groups + (group < microbatches % groups ? 1 : 0);
      largest_group_ = std::max(largest_group_, size);
      for (int loop = 0; loop < stages_per_rank; ++loop)
        for (int microbatch = first; microbatch < first + size; ++microbatch) steps_.push_back({loop, microbatch});
      first += size;
    }
  }

  [[nodiscard]] int steps() const { return static_cast<int>(steps_.size()); }
  // The forwards that a rank does before its first backward, when each rank after it is worth so many.
  [[nodiscard]] int warm_up(int rank, int for_each_rank) const {
    return std::min(last_loop_ * largest_group_ + for_each_rank * (ranks_ - 1 - rank), steps());
  }
  [[nodiscard]] int microbatch(int step) const { return at(step).microbatch; }
  [[nodiscard]] int forward_stage(int rank, int step) const { return at(step).loop * ranks_ + rank; }
  [[nodiscard]] int backward_stage(int rank, int step) const { return (last_loop_ - at(step).loop) * ranks_ + rank; }

 private:
  struct Step {
    int loop;
    int microbatch;
  };
  [[nodiscard]] const Step& at(int step) const { return entry(steps_, step); }

  int ranks_;
  int last_loop_;
  int largest_group_ = 0;
  std::vector<Step> steps_;
};

}  // namespace

Schedule interleaved_1f1b_schedule(int ranks, int stages_per_rank, int microbatches) {
  Schedule schedule = empty_loop_schedule(ranks, stages_per_rank, microbatches);
  const LoopOrder order(ranks, stages_per_rank, microbatches);
  const int steps = order.steps();
  for (int rank = 0; rank < ranks; ++rank) {
    const int warm_up = order.warm_up(rank, 2);
    for (int step = 0; step < steps + warm_up; ++step) {
      if (step < steps)
        append(schedule, rank, ActionKind::Forward, order.forward_stage(rank, step), order.microbatch(step));
      const int back = step - warm_up;
      if (back >= 0)
        append(schedule, rank, ActionKind::Backward, order.backward_stage(rank, back), order.microbatch(back));
    }
  }
  return schedule;
}

Schedule interleaved_zero_bubble_schedule(int ranks, int stages_per_rank, int microbatches) {
  Schedule schedule = empty_loop_schedule(ranks, stages_per_rank, microbatches);
  const LoopOrder order(ranks, stages_per_rank, microbatches);
  const int steps = order.steps();
  for (int rank = 0; rank < ranks; ++rank) {
    const int warm_up = order.warm_up(rank, 1);
    const int delay = rank;
    for (int step = 0; step < steps + warm_up + delay; ++step) {
      if (step < steps)
        append(schedule, rank, ActionKind::Forward, order.forward_stage(rank, step), order.microbatch(step));
      const int back = step - warm_up;
      if (back >= 0 && back < steps)
        append(schedule, rank, ActionKind::InputBackward, order.backward_stage(rank, back), order.microbatch(back));
      const int weight = back - delay;
      if (weight >= 0)
        append(schedule, rank, ActionKind::WeightBackward, order.backward_stage(rank, weight),
               order.microbatch(weight));
    }
  }
  return schedule;
}

Schedule looped_bfs_schedule(int ranks, int stages_per_rank, int microbatches) {
  Schedule schedule = empty_loop_schedule(ranks, stages_per_rank, microbatches);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int loop = 0; loop < stages_per_rank; ++loop)
      for (int microbatch = 0; microbatch < microbatches; ++microbatch)
        append(schedule, rank, ActionKind::Forward, loop * ranks + rank, microbatch);
    for (int loop = stages_per_rank; loop-- > 0;)
      for (int microbatch = 0; microbatch < microbatches; ++microbatch)
        append(schedule, rank, ActionKind::Backward, loop * ranks + rank, microbatch);
  }
  return schedule;
}

}  // namespace penstock
