/// \file
/// What the messages between ranks carry: the first part of each message's tag.
#pragma once

#include <cstdint>

#include "penstock/transport/transport.h"

namespace penstock {

/// With each kind: what the tag's channel is, and its microbatch if that is not one.
enum class MessageKind : std::uint8_t {
  Activation,    ///< output of a stage, to the next; channel: the stage that receives
  Gradient,      ///< gradient of a stage's output; channel: the stage that receives
  TiedGradient,  ///< gradient of a tied parameter, to the rank that adds; channel: the group, microbatch: the member
  TiedSum,       ///< sum of a group's gradients, or its initial value, to the ranks of its members; channel: the group
  CopyGradient,  ///< some of the gradients of a stage with several holders, to the one that adds them up; channel: the
                 ///< stage, microbatch: the bucket
  CopySum,       ///< their sum, back to the other holders; addressed as CopyGradient
  Probe,         ///< bytes that mean nothing, to measure a link
  LossWeights,   ///< of the microbatches, from a rank of the last stage to all; channel: the rank that sends
  Report,        ///< what was done and measured, between the processes; channel: the rank that sends
  CopyWeights,   ///< weights after an update, to the other holders of their stage; addressed as CopyGradient
  Control,       ///< what a process asks of the others with a step; channel: the rank that sends
};

/// Whether a message of that tag is one that crosses the boundary between two stages.
[[nodiscard]] constexpr bool crosses_a_boundary(const Tag& tag) {
  return tag.kind == MessageKind::Activation || tag.kind == MessageKind::Gradient;
}

}  // namespace penstock
