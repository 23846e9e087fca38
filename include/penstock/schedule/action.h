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
};

/// One step of a rank. A send or a receive names the stage on its own side: `1SEND_F0` on one rank meets `2RECV_F0` on
/// another, and `2SEND_B0` meets `1RECV_B0`.
struct Action {
  ActionKind kind = ActionKind::Forward;
  StageId stage;
  MicrobatchId microbatch;

  friend auto operator<=>(const Action&, const Action&) = default;
};

/// True for `F`, `B`, `I` and `W`; false for sends and receives.
[[nodiscard]] constexpr bool is_compute(ActionKind kind) { return kind <= ActionKind::WeightBackward; }

}  // namespace penstock
