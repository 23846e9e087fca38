/// \file
/// What every generator starts from.
#pragma once

#include <string_view>

#include "penstock/base/index.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// A schedule with the stages in a loop, still without actions. \throws Error (BadInput) if a size is below 1.
[[nodiscard]] Schedule empty_loop_schedule(int ranks, int stages_per_rank, int microbatches);

/// A schedule with two stages a rank in a V, still without actions. \throws Error (BadInput) if a size is below 1.
[[nodiscard]] Schedule empty_v_schedule(int ranks, int microbatches);

/// A schedule on any placement. The caller has checked the sizes.
[[nodiscard]] Schedule empty_schedule(int ranks, int microbatches, Placement placement);

/// \throws Error (BadInput) if a size is below 1, or so large that stage numbers do not hold it.
void check_sizes(int ranks, int stages_per_rank, int microbatches);

/// \throws Error (BadInput) for an odd number of ranks; `name` is that of a schedule in two directions.
void check_two_directions(std::string_view name, int ranks);

/// \throws Error (BadInput) for an odd number of stages a rank: a wave goes over the ranks and back.
void check_waves(int stages_per_rank);

/// Leaves only the microbatches below `microbatches`: what remains keeps its order, so a correct schedule stays one.
void keep_microbatches(Schedule& schedule, int microbatches);

/// Stage s on ranks s and P − 1 − s. \throws Error (BadInput) for an odd number of ranks; `name` is the schedule's.
[[nodiscard]] Placement bidirectional_placement(std::string_view name, int ranks);

inline void append(Schedule& schedule, int rank, ActionKind kind, int stage, int microbatch) {
  entry(schedule.actions, rank).push_back({kind, {stage}, {microbatch}});
}

}  // namespace penstock
