#include <algorithm>

#include "penstock/schedule/generators.h"

#include "schedule/generator_base.h"

namespace penstock {
namespace {

// H1 and H2 differ in how many microbatches each rank's distance from an end of the pipeline is worth: one or two.
Schedule handcrafted(int ranks, int microbatches, int for_each_rank) {
  Schedule schedule = empty_loop_schedule(ranks, 1, microbatches);
  for (int rank = 0; rank < ranks; ++rank) {
    const int warm_up = std::min(for_each_rank * (ranks - 1 - rank), microbatches);
    const int delay = std::min(for_each_rank * rank, microbatches);
    for (int step = 0; step < microbatches + warm_up + delay; ++step) {
      if (step < microbatches) append(schedule, rank, ActionKind::Forward, rank, step);
      const int back = step - warm_up;
      if (back >= 0 && back < microbatches) append(schedule, rank, ActionKind::InputBackward, rank, back);
      if (back >= delay) append(schedule, rank, ActionKind::WeightBackward, rank, back - delay);
    }
  }
  return schedule;
}

}  // namespace

Schedule zb_h1_schedule(int ranks, int microbatches) { return handcrafted(ranks, microbatches, 1); }

Schedule zb_h2_schedule(int ranks, int microbatches) { return handcrafted(ranks, microbatches, 2); }

}  // namespace penstock
