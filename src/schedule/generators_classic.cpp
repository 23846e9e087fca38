#include <algorithm>

#include "penstock/schedule/generators.h"

#include "schedule/generator_base.h"

namespace penstock {

Schedule naive_schedule(int ranks, int microbatches) {
  Schedule schedule = empty_loop_schedule(ranks, 1, microbatches);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int microbatch = 0; microbatch < microbatches; ++microbatch) {
      append(schedule, rank, ActionKind::Forward, rank, microbatch);
      append(schedule, rank, ActionKind::Backward, rank, microbatch);
    }
  }
  return schedule;
}

Schedule gpipe_schedule(int ranks, int microbatches) {
  Schedule schedule = empty_loop_schedule(ranks, 1, microbatches);
  for (int rank = 0; rank < ranks; ++rank) {
    for (const ActionKind kind : {ActionKind::Forward, ActionKind::Backward})
      for (int microbatch = 0; microbatch < microbatches; ++microbatch) append(schedule, rank, kind, rank, microbatch);
  }
  return schedule;
}

Schedule one_f_one_b_schedule(int ranks, int microbatches) {
  Schedule schedule = empty_loop_schedule(ranks, 1, microbatches);
  for (int rank = 0; rank < ranks; ++rank) {
    const int warm_up = std::min(ranks - 1 - rank, microbatches);
    for (int microbatch = 0; microbatch < warm_up; ++microbatch)
      append(schedule, rank, ActionKind::Forward, rank, microbatch);
    for (int microbatch = 0; microbatch < microbatches; ++microbatch) {
      if (warm_up + microbatch < microbatches) append(schedule, rank, ActionKind::Forward, rank, warm_up + microbatch);
      append(schedule, rank, ActionKind::Backward, rank, microbatch);
    }
  }
  return schedule;
}

Schedule forward_only_schedule(int ranks, int microbatches) {
  Schedule schedule = empty_loop_schedule(ranks, 1, microbatches);
  schedule.forward_only = true;
  for (int rank = 0; rank < ranks; ++rank)
    for (int microbatch = 0; microbatch < microbatches; ++microbatch)
      append(schedule, rank, ActionKind::Forward, rank, microbatch);
  return schedule;
}

}  // namespace penstock
