/// \file
/// What every generator starts from.
#pragma once

#include "penstock/schedule/schedule.h"

namespace penstock {

/// A schedule with the stages in a loop, still without actions. \throws Error (BadInput) where a size is below 1.
[[nodiscard]] Schedule empty_loop_schedule(int ranks, int stages_per_rank, int microbatches);

/// A schedule with two stages a rank in a V, still without actions. \throws Error (BadInput) where a size is below 1.
[[nodiscard]] Schedule empty_v_schedule(int ranks, int microbatches);

inline void append(Schedule& schedule, int rank, ActionKind kind, int stage, int microbatch) {
  schedule.actions[static_cast<std::size_t>(rank)].push_back({kind, {stage}, {microbatch}});
}

}  // namespace penstock
