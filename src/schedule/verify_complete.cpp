#include <algorithm>
#include <fmt/format.h>

#include "penstock/base/index.h"

#include "schedule/verify_passes.h"

namespace penstock {
namespace {

// The end of the row of the rank that holds the stage: where a missing action is to be added.
Place end_of_holder(const Schedule& schedule, std::int32_t stage) {
  const std::int32_t rank = entry(schedule.placement.holders, stage).front().value;
  return {rank, static_cast<std::int32_t>(entry(schedule.actions, rank).size())};
}

Error missing(const Schedule& schedule, Place place, const Action& action) {
  return refusal(schedule, place, fmt::format("{} is missing", to_string(action)),
                 "every stage to do every microbatch's F and its B, or I and W",
                 fmt::format("add {}", to_string(action)));
}

// The smallest microbatch of which the stage has no F.
std::int32_t first_missing(const Schedule& schedule, std::int32_t stage, std::size_t present) {
  std::vector<bool> seen(present + 1);
  for (const RankId rank : entry(schedule.placement.holders, stage))
    for (const Action& action : entry(schedule.actions, rank))
      if (action.kind == ActionKind::Forward && action.stage.value == stage && action.microbatch.index() < seen.size())
        entry(seen, action.microbatch) = true;
  return static_cast<std::int32_t>(std::find(seen.begin(), seen.end(), false) - seen.begin());
}

void check_backward(const Schedule& schedule, const ActionIndex& index, Action action) {
  const std::size_t slot = index.slot(action);
  const Place forward = index.forward[slot];
  const Place input = index.input_backward[slot];
  const Place weight = index.weight_backward[slot];
  if (schedule.forward_only) {
    const Place first = input.exists() ? input : weight;
    if (first.exists())
      throw refusal(schedule, first, "is a backward in a forward-only schedule", "forwards alone", "delete it");
    return;
  }
  const Place row_end{forward.rank, static_cast<std::int32_t>(entry(schedule.actions, forward.rank).size())};
  action.kind = weight.exists() ? ActionKind::InputBackward : ActionKind::Backward;
  if (!input.exists()) throw missing(schedule, row_end, action);
  action.kind = ActionKind::WeightBackward;
  if (!weight.exists()) throw missing(schedule, row_end, action);
  for (const Place place : {input, weight})
    if (place.rank != forward.rank)
      throw refusal(schedule, place, fmt::format("is far from its F, on rank {}", forward.rank),
                    "a microbatch's F, B, I and W of a stage on one rank",
                    fmt::format("move it to rank {}", forward.rank));
}

}  // namespace

void check_forward_count(const Schedule& schedule) {
  std::vector<std::size_t> count(as_size(schedule.stages));
  for (const auto& row : schedule.actions)
    for (const Action& action : row)
      if (action.kind == ActionKind::Forward) ++entry(count, action.stage);
  for (std::int32_t stage = 0; stage < schedule.stages; ++stage) {
    const std::size_t present = entry(count, stage);
    if (present >= as_size(schedule.microbatches)) continue;
    const Action action{ActionKind::Forward, {stage}, {first_missing(schedule, stage, present)}};
    throw missing(schedule, end_of_holder(schedule, stage), action);
  }
}

void check_complete(const Schedule& schedule, const ActionIndex& index) {
  for (std::int32_t stage = 0; stage < schedule.stages; ++stage) {
    for (std::int32_t microbatch = 0; microbatch < schedule.microbatches; ++microbatch) {
      const Action action{ActionKind::Forward, {stage}, {microbatch}};
      if (!index.forward[index.slot(action)].exists()) throw missing(schedule, end_of_holder(schedule, stage), action);
      check_backward(schedule, index, action);
    }
  }
}

void check_accumulation(const Schedule& schedule) {
  std::vector<std::int32_t> last_position(as_size(schedule.stages));
  std::vector<std::int32_t> last_rank(as_size(schedule.stages), -1);
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank) {
    const auto& row = entry(schedule.actions, rank);
    for (std::int32_t position = 0; position < static_cast<std::int32_t>(row.size()); ++position) {
      const Action& action = entry(row, position);
      if (action.kind != ActionKind::Backward && action.kind != ActionKind::WeightBackward) continue;
      const std::size_t stage = action.stage.index();
      if (last_rank[stage] == rank) {
        const Place earlier{rank, last_position[stage]};
        if (at(schedule, earlier).microbatch > action.microbatch)
          throw refusal(schedule, {rank, position},
                        fmt::format("adds its gradient after {} at position {}", to_string(at(schedule, earlier)),
                                    earlier.position),
                        "the gradients of a stage in the order of the microbatches", "exchange the two");
      }
      last_rank[stage] = rank;
      last_position[stage] = position;
    }
  }
}

}  // namespace penstock
