#include <array>
#include <fmt/format.h>

#include "schedule/verify_passes.h"

namespace penstock {
namespace {

// A message is used where its place in a table is: on the rank of the action that makes it, or needs it.
void check_message(const Schedule& schedule, Place message, Place owner, Place other_side, const Action& action) {
  const bool crosses = other_side.exists() && other_side.rank != owner.rank;
  if (!crosses) {
    if (message.exists())
      throw refusal(schedule, message,
                    other_side.exists() ? "moves a boundary between two stages of one rank" : "crosses no boundary",
                    "sends and receives where a boundary crosses ranks", "delete it");
    return;
  }
  if (!message.exists())
    throw refusal(
        schedule, owner, fmt::format("has no {}", to_string(action)),
        fmt::format("a boundary between ranks {} and {} to be sent and received", owner.rank, other_side.rank),
        fmt::format("add {} to rank {}", to_string(action), owner.rank));
  if (message.rank != owner.rank)
    throw refusal(schedule, message, fmt::format("is far from {}", name_of(schedule, owner)),
                  "a send or receive on the rank of its action", fmt::format("move it to rank {}", owner.rank));
}

}  // namespace

void check_boundaries(const Schedule& schedule, const ActionIndex& index) {
  const Place none;
  for (std::int32_t stage = 0; stage < schedule.stages; ++stage) {
    for (std::int32_t microbatch = 0; microbatch < schedule.microbatches; ++microbatch) {
      const std::size_t slot = index.slot(stage, microbatch);
      const bool first = stage == 0;
      const bool last = stage + 1 == schedule.stages;
      const Place forward_before = first ? none : index.forward[slot - index.microbatches];
      const Place forward_after = last ? none : index.forward[slot + index.microbatches];
      const Place backward_before = first ? none : index.input_backward[slot - index.microbatches];
      const Place backward_after = last ? none : index.input_backward[slot + index.microbatches];
      const Place forward = index.forward[slot];
      const Place backward = index.input_backward[slot];
      const auto named = [&](ActionKind kind) { return Action{kind, {stage}, {microbatch}}; };
      check_message(schedule, index.send_forward[slot], forward, forward_after, named(ActionKind::SendForward));
      check_message(schedule, index.receive_forward[slot], forward, forward_before, named(ActionKind::ReceiveForward));
      if (schedule.forward_only) {
        for (const Place extra : {index.send_backward[slot], index.receive_backward[slot]})
          if (extra.exists())
            throw refusal(schedule, extra, "moves a gradient in a forward-only schedule", "activations alone",
                          "delete it");
        continue;
      }
      check_message(schedule, index.send_backward[slot], backward, backward_before, named(ActionKind::SendBackward));
      check_message(schedule, index.receive_backward[slot], backward, backward_after,
                    named(ActionKind::ReceiveBackward));
    }
  }
}

}  // namespace penstock
