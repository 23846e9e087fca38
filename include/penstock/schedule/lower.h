/// \file
/// Lowering: from what is computed to what is also sent and received.
#pragma once

#include "penstock/schedule/verify.h"

namespace penstock {

/// Adds the sends and receives that the placement calls for. A send follows its action at once (it does not block).
/// A receive says when a rank needs a message at the latest, so nothing waits for one before its action does: it stands
/// right before the action that needs it, together with the receives of what the same rank sent it earlier. The
/// receives from a rank are therefore in the order of its sends, which lets a transport post them ahead, as far as its
/// memory permits, and lets engines that tell messages apart only by their order (NCCL, PyTorch's runtime) run the
/// schedule. Waiting for the earlier message costs nothing: it is there before the later one.
///
/// Boundaries between two stages of one rank need neither. A schedule that already has sends or receives is returned as
/// it is. Time and memory are linear in the number of actions.
[[nodiscard]] VerifiedSchedule lower(const VerifiedSchedule& compute);

}  // namespace penstock
