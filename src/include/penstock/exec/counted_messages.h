/// \file
/// Messages between ranks whose memory is counted: each byte counts at one rank's meter, or at none while it travels.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"
#include "penstock/exec/memory.h"
#include "penstock/transport/transport.h"

namespace penstock {

/// Copies, in its own layout, each tensor whose memory somebody else holds too: the sender's graph keeps an output, as
/// that of a ReLU does, or one gradient goes to two places. Afterwards the message's tensors share memory with each
/// other at most, and whoever gets them may write to it.
void copy_what_others_hold(std::vector<at::Tensor>& message);

/// Sends a message whose memory then counts nowhere. Tensors that others hold too are copied first. \throws Aborted
void send_counted(Transport& transport, RankId to, const Tag& tag, std::vector<at::Tensor> message);

/// Waits for a message, whose memory then counts at `memory`. \throws Aborted; Error (RunFailed) beyond the limit
[[nodiscard]] std::vector<at::Tensor> receive_counted(Transport& transport, MemoryMeter& memory, RankId from,
                                                      const Tag& tag);

}  // namespace penstock
