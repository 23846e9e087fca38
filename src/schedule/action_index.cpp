#include "schedule/action_index.h"

#include <algorithm>
#include <fmt/format.h>

#include "penstock/base/index.h"

namespace penstock {
namespace {

std::vector<Place>* table_for(ActionIndex& index, ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return &index.forward;
    case ActionKind::Backward:
    case ActionKind::InputBackward:
      return &index.input_backward;
    case ActionKind::WeightBackward:
      return &index.weight_backward;
    case ActionKind::SendForward:
      return &index.send_forward;
    case ActionKind::ReceiveForward:
      return &index.receive_forward;
    case ActionKind::SendBackward:
      return &index.send_backward;
    case ActionKind::ReceiveBackward:
      return &index.receive_backward;
    case ActionKind::Unshard:
    case ActionKind::Reshard:
    case ActionKind::ReduceGradient:
    case ActionKind::Idle:
      return nullptr;
  }
  return nullptr;
}

void enter(const Schedule& schedule, Place& slot, Place place) {
  if (slot.exists())
    throw refusal(schedule, place, fmt::format("repeats the work of {}", name_of(schedule, slot)),
                  "each F, and each B or I and W, once", "delete one of the two");
  slot = place;
}

}  // namespace

ActionIndex index_actions(const Schedule& schedule) {
  ActionIndex index;
  index.microbatches = as_size(schedule.microbatches);
  for (const auto& row : schedule.actions)
    index.communicates = index.communicates ||
                         std::any_of(row.begin(), row.end(), [](const Action& a) { return is_communication(a.kind); });
  const std::size_t size = as_size(schedule.stages) * index.microbatches;
  for (auto* table : {&index.forward, &index.input_backward, &index.weight_backward}) table->resize(size);
  if (index.communicates)
    for (auto* table : {&index.send_forward, &index.receive_forward, &index.send_backward, &index.receive_backward})
      table->resize(size);
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank) {
    const auto& row = entry(schedule.actions, rank);
    for (std::int32_t position = 0; position < static_cast<std::int32_t>(row.size()); ++position) {
      const Action& action = entry(row, position);
      auto* table = table_for(index, action.kind);
      if (table == nullptr) continue;
      const std::size_t slot = index.slot(action);
      enter(schedule, (*table)[slot], {rank, position});
      if (action.kind == ActionKind::Backward) enter(schedule, index.weight_backward[slot], {rank, position});
    }
  }
  return index;
}

namespace {

// A receive posts a buffer and goes on; who needs the message waits for it. In a rendezvous the receive itself waits.
void add_message(Dependencies& dependencies, Place receive, Place send, bool rendezvous) {
  dependencies.add(receive);
  if (!rendezvous) dependencies.add(send);
}

}  // namespace

Dependencies dependencies_of(const Schedule& schedule, const ActionIndex& index, Place place, bool rendezvous) {
  Dependencies result;
  const Action& action = at(schedule, place);
  if (is_stage_marker(action.kind) || action.kind == ActionKind::Idle) return result;
  const std::size_t slot = index.slot(action);
  const std::size_t next = slot + index.microbatches;
  const std::size_t previous = slot - index.microbatches;
  const bool first = action.stage.value == 0;
  const bool last = action.stage.value + 1 == schedule.stages;
  switch (action.kind) {
    case ActionKind::Forward:
      if (first) break;
      if (index.communicates && index.forward[previous].rank != place.rank)
        add_message(result, index.receive_forward[slot], index.send_forward[previous], rendezvous);
      else
        result.add(index.forward[previous]);
      break;
    case ActionKind::Backward:
    case ActionKind::InputBackward:
      result.add(index.forward[slot]);
      if (last) break;
      if (index.communicates && index.input_backward[next].rank != place.rank)
        add_message(result, index.receive_backward[slot], index.send_backward[next], rendezvous);
      else
        result.add(index.input_backward[next]);
      break;
    case ActionKind::WeightBackward:
      result.add(index.input_backward[slot]);
      break;
    case ActionKind::SendForward:
      result.add(index.forward[slot]);
      if (rendezvous) result.add(index.receive_forward[next], true);
      break;
    case ActionKind::SendBackward:
      result.add(index.input_backward[slot]);
      if (rendezvous) result.add(index.receive_backward[previous], true);
      break;
    case ActionKind::ReceiveForward:
      if (rendezvous) result.add(index.send_forward[previous], true);
      break;
    case ActionKind::ReceiveBackward:
      if (rendezvous) result.add(index.send_backward[next], true);
      break;
    default:
      break;
  }
  return result;
}

}  // namespace penstock
