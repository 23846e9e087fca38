/// \file
/// A schedule is data: for each rank, its actions in order. Generators return one, files hold one, the verifier proves
/// one, the simulator plays one and the executor interprets one; nothing else about a pipeline's order exists anywhere.
///
/// The text form is the CSV of torch.distributed.pipelining (PyTorch 2.13), so that schedules travel in both
/// directions: a row a rank, a cell an action, `2F0` for the forward of stage 2 on microbatch 0; `B`, `I`, `W`,
/// `SEND_F`, `RECV_F`, `SEND_B` and `RECV_B` alike; `2UNSHARD`, `2RESHARD` and `2REDUCE_GRAD` for the whole of stage 2;
/// an empty cell for a step in which the rank waits; `(0F1;1B2)OVERLAP_F_B` for two actions that run together.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "penstock/schedule/action.h"
#include "penstock/schedule/placement.h"

namespace penstock {

/// Which rank does which actions in which order. A value; only `verify` says whether it can run.
struct Schedule {
  int stages = 0;                            ///< S, at least 1
  int microbatches = 0;                      ///< M, at least 1
  Placement placement;                       ///< one entry for each stage
  std::vector<std::vector<Action>> actions;  ///< by rank, in the order of execution
  bool forward_only = false;                 ///< evaluation or inference: no stage does a backward

  [[nodiscard]] int ranks() const { return static_cast<int>(actions.size()); }

  friend bool operator==(const Schedule&, const Schedule&) = default;
};

/// One cell: `2F0`, `3SEND_F1`, nothing for a step of waiting. An overlap is not of one action and does not show.
[[nodiscard]] std::string to_string(const Action& action);

/// The text form, one line a rank, each ended by a newline. `parse_schedule` of it gives back an equal schedule.
[[nodiscard]] std::string to_csv(const Schedule& schedule);

/// Reads the text form. Stages, microbatches and placement follow from the actions. Says nothing of correctness: that
/// is the verifier's. \throws Error (BadInput) that names row and column where the text is not a schedule.
[[nodiscard]] Schedule parse_schedule(std::string_view csv);

}  // namespace penstock
