/// \file
/// Lowering: from what is computed to what is also sent and received.
#pragma once

#include "penstock/schedule/verify.h"

namespace penstock {

/// Where receives stand.
struct LowerOptions {
  /// The most receives of a rank that are posted and not yet used, each of which holds the memory of a boundary: a
  /// receive stands as early as that permits. 0: as late as it may, for engines that wait in their receives. More are
  /// posted where one action needs them. Typical: 2.
  int posted_receives = 0;
};

/// Adds the sends and receives that the placement calls for. A send follows its action at once (it does not block). A
/// receive only posts a buffer, and nothing waits for it but the action that needs the message. The receives from a
/// rank are in the order of its sends, so that engines that identify messages only by their order (NCCL, PyTorch's
/// runtime) can run the schedule; a message that was sent earlier arrives no later. Boundaries between two stages of
/// one rank need neither. A schedule that already has sends or receives is returned as it is. Time and memory are
/// linear in the number of actions. \throws Error (BadInput) for a negative number of posted receives.
[[nodiscard]] VerifiedSchedule lower(const VerifiedSchedule& compute, const LowerOptions& options = {});

}  // namespace penstock
