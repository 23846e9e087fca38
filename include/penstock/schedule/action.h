/// \file
/// An action: one step of a rank, for one stage and one microbatch. A schedule is nothing but actions in order.
#pragma once

#include <compare>
#include <cstdint>

#include "penstock/base/ids.h"

namespace penstock {

/// What a rank does in one step. The letters are those of the text form.
enum class ActionKind : std::uint8_t {
  Forward,          ///< `F`: the stage's forward pass.
  Backward,         ///< `B`: the whole backward pass, input and weight gradients together.
  InputBackward,    ///< `I`: only the gradient of the stage's input (arXiv 2401.10241, section 2).
  WeightBackward,   ///< `W`: only the gradients of the stage's weights, after the `I` of the same microbatch.
  SendForward,      ///< `SEND_F`: the stage's output goes to the rank of the next stage. Does not block.
  ReceiveForward,   ///< `RECV_F`: the stage's input, the output of the stage before it, arrives.
  SendBackward,     ///< `SEND_B`: the gradient of the stage's input goes to the rank of the stage before it.
  ReceiveBackward,  ///< `RECV_B`: the gradient of the stage's output arrives from the next stage.
  Unshard,          ///< `UNSHARD`: PyTorch's FSDP gathers the stage's parameters. Of a stage, not of a microbatch.
  Reshard,          ///< `RESHARD`: PyTorch's FSDP frees them again. Of a stage, not of a microbatch.
  ReduceGradient,   ///< `REDUCE_GRAD`: the stage's gradients are complete. Of a stage, not of a microbatch.
  Idle,             ///< An empty cell: the rank waits for a step. Of no stage and no microbatch.
};

/// One step of a rank. A send or a receive names the stage on its own side: `1SEND_F0` on one rank meets `2RECV_F0` on
/// another, and `2SEND_B0` meets `1RECV_B0`. What has no stage or no microbatch holds -1 there.
struct Action {
  ActionKind kind = ActionKind::Forward;
  StageId stage;
  MicrobatchId microbatch;
  /// Runs together with the action after it on the same rank, as DualPipe's F&B do: a forward and a backward that both
  /// may begin once the inputs of both are there. An executor that cannot overlap them runs the two in order, which is
  /// as correct.
  bool overlaps_next = false;

  friend auto operator<=>(const Action&, const Action&) = default;
};

/// True for `F`, `B`, `I` and `W`; false for all others.
[[nodiscard]] constexpr bool is_compute(ActionKind kind) { return kind <= ActionKind::WeightBackward; }

/// True for `F`: from its start on the rank holds the microbatch's activation on the stage.
[[nodiscard]] constexpr bool takes_activation(ActionKind kind) { return kind == ActionKind::Forward; }

/// True for `B` and `W`: at its end the rank holds nothing of the activation any more.
[[nodiscard]] constexpr bool frees_activation(ActionKind kind) {
  return kind == ActionKind::Backward || kind == ActionKind::WeightBackward;
}

/// True for the four sends and receives.
[[nodiscard]] constexpr bool is_communication(ActionKind kind) {
  return kind >= ActionKind::SendForward && kind <= ActionKind::ReceiveBackward;
}

/// True for `SEND_F` and `SEND_B`.
[[nodiscard]] constexpr bool is_send(ActionKind kind) {
  return kind == ActionKind::SendForward || kind == ActionKind::SendBackward;
}

/// True for what PyTorch's runtime does to a stage as a whole; penstock reads and writes it, and runs nothing for it.
[[nodiscard]] constexpr bool is_stage_marker(ActionKind kind) {
  return kind >= ActionKind::Unshard && kind <= ActionKind::ReduceGradient;
}

}  // namespace penstock
