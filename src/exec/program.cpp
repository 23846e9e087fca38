#include <algorithm>
#include <ranges>

#include "penstock/base/error.h"
#include "penstock/exec/rank.h"
#include "penstock/schedule/routes.h"

namespace penstock {
namespace {

std::int32_t local_index(const std::vector<StageId>& stages, StageId stage) {
  const auto found = std::lower_bound(stages.begin(), stages.end(), stage);
  return found != stages.end() && *found == stage ? static_cast<std::int32_t>(found - stages.begin()) : -1;
}

// The stage on the other side of the boundary that the action's result, or its message, crosses.
StageId neighbour(const Action& action) {
  switch (action.kind) {
    case ActionKind::Forward:
    case ActionKind::SendForward:
    case ActionKind::ReceiveBackward:
      return {action.stage.value + 1};
    default:
      return {action.stage.value - 1};
  }
}

}  // namespace

Program compile(const VerifiedSchedule& lowered, RankId rank) {
  const Schedule& schedule = lowered.get();
  // A stage with several holders: which of them does a microbatch, only the actions say.
  const Routes routes(schedule);
  Program program;
  program.microbatches = schedule.microbatches;
  for (std::int32_t stage = 0; stage < schedule.stages; ++stage) {
    const auto& holders = schedule.placement.holders.at(static_cast<std::size_t>(stage));
    if (std::find(holders.begin(), holders.end(), rank) != holders.end()) program.stages.push_back({stage});
  }
  const auto instruction_of = [&](const Action& action) {
    Instruction instruction{action, local_index(program.stages, action.stage), {}, -1, false, false};
    check_invariant(instruction.local_stage >= 0, "an action of a stage that the rank does not hold");
    const StageId other = neighbour(action);
    const bool exists = other.value >= 0 && other.value < schedule.stages;
    if (exists && is_communication(action.kind)) instruction.peer = routes.rank_of(other, action.microbatch);
    if (exists && is_compute(action.kind) && routes.rank_of(other, action.microbatch) == rank)
      instruction.local_next = local_index(program.stages, other);
    return instruction;
  };
  // Wherever a receive was posted, its message is waited for right before the action, or the pair, that needs it.
  const auto add_receive = [&](const Action& action) {
    const bool forward = action.kind == ActionKind::Forward;
    if (!forward && action.kind != ActionKind::Backward && action.kind != ActionKind::InputBackward) return;
    const StageId from{action.stage.value + (forward ? -1 : 1)};
    if (from.value < 0 || from.value >= schedule.stages || routes.rank_of(from, action.microbatch) == rank) return;
    program.instructions.push_back(instruction_of(
        {forward ? ActionKind::ReceiveForward : ActionKind::ReceiveBackward, action.stage, action.microbatch}));
  };
  const auto& actions = schedule.actions.at(rank.index());
  bool second_of_pair = false;
  for (std::size_t position = 0; position < actions.size(); ++position) {
    const Action& action = actions[position];
    if (is_compute(action.kind)) {
      if (!second_of_pair) add_receive(action);
      if (action.overlaps_next) add_receive(actions[position + 1]);
      second_of_pair = action.overlaps_next;
      program.instructions.push_back(instruction_of(action));
    } else if (is_send(action.kind)) {
      program.instructions.push_back(instruction_of(action));
    }
  }
  std::vector<bool> seen(program.stages.size());
  for (Instruction& instruction : std::views::reverse(program.instructions)) {
    const ActionKind kind = instruction.action.kind;
    if (kind != ActionKind::Backward && kind != ActionKind::WeightBackward) continue;
    const auto stage = static_cast<std::size_t>(instruction.local_stage);
    instruction.last_of_gradients = !seen[stage];
    seen[stage] = true;
  }
  const auto last_loss =
      std::ranges::find_if(std::views::reverse(program.instructions), [&](const Instruction& instruction) {
        return instruction.action.kind == ActionKind::Forward && instruction.action.stage.value + 1 == schedule.stages;
      });
  if (last_loss != program.instructions.rend()) last_loss->last_of_losses = true;
  return program;
}

}  // namespace penstock
