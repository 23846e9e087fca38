#include <algorithm>

#include "penstock/schedule/generators.h"

#include "schedule/generator_base.h"

namespace penstock {
namespace {

// A rank of a looped pipeline works on `ranks` microbatches of one of its stages, then on the same ones of the next.
class LoopOrder {
 public:
  LoopOrder(int ranks, int stages_per_rank) : ranks_(ranks), stages_per_rank_(stages_per_rank) {}

  [[nodiscard]] int microbatch(int step) const { return step / (ranks_ * stages_per_rank_) * ranks_ + step % ranks_; }
  [[nodiscard]] int forward_stage(int rank, int step) const { return loop(step) * ranks_ + rank; }
  [[nodiscard]] int backward_stage(int rank, int step) const {
    return (stages_per_rank_ - 1 - loop(step)) * ranks_ + rank;
  }

 private:
  [[nodiscard]] int loop(int step) const { return step / ranks_ % stages_per_rank_; }

  int ranks_;
  int stages_per_rank_;
};

int rounded_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Schedule interleaved_1f1b_schedule(int ranks, int stages_per_rank, int microbatches) {
  check_sizes(ranks, stages_per_rank, microbatches);
  Schedule schedule = empty_loop_schedule(ranks, stages_per_rank, rounded_up(microbatches, ranks));
  const LoopOrder order(ranks, stages_per_rank);
  const int steps = schedule.microbatches * stages_per_rank;
  for (int rank = 0; rank < ranks; ++rank) {
    const int warm_up = std::min((stages_per_rank - 1) * ranks + 2 * (ranks - 1 - rank), steps);
    for (int step = 0; step < steps + warm_up; ++step) {
      if (step < steps)
        append(schedule, rank, ActionKind::Forward, order.forward_stage(rank, step), order.microbatch(step));
      const int back = step - warm_up;
      if (back >= 0)
        append(schedule, rank, ActionKind::Backward, order.backward_stage(rank, back), order.microbatch(back));
    }
  }
  keep_microbatches(schedule, microbatches);
  return schedule;
}

Schedule interleaved_zero_bubble_schedule(int ranks, int stages_per_rank, int microbatches) {
  check_sizes(ranks, stages_per_rank, microbatches);
  Schedule schedule = empty_loop_schedule(ranks, stages_per_rank, rounded_up(microbatches, ranks));
  const LoopOrder order(ranks, stages_per_rank);
  const int steps = schedule.microbatches * stages_per_rank;
  for (int rank = 0; rank < ranks; ++rank) {
    const int warm_up = std::min((stages_per_rank - 1) * ranks + ranks - 1 - rank, steps);
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
  keep_microbatches(schedule, microbatches);
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
