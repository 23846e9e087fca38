/// \file
/// Lowering: from what is computed to what is also sent and received.
#pragma once

#include "penstock/schedule/verify.h"

namespace penstock {

/// Where receives stand.
struct LowerOptions {
  /// The most receives of a rank that are posted and not yet used, each of which holds the memory of a boundary: a
  /// receive stands as early as that permits, right behind the action that used the one so many before it. 0: right
  /// before the action that needs it, for engines that wait in their receives. Typical: 2.
  int posted_receives = 0;
};

/// Adds the sends and receives that the placement calls for. A send follows its action at once (it does not block); a
/// receive only posts a buffer, and nothing waits for it but the action that needs it. Boundaries between two stages of
/// one rank need neither. A schedule that already has sends or receives is returned as it is.
/// \throws Error (BadInput) for a negative number of posted receives.
[[nodiscard]] VerifiedSchedule lower(const VerifiedSchedule& compute, const LowerOptions& options = {});

}  // namespace penstock
