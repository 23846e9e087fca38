/// \file
/// Lowering: from what is computed to what is also sent and received.
#pragma once

#include "penstock/schedule/verify.h"

namespace penstock {

/// Adds the sends and receives that the placement calls for. A send follows its action at once (it does not block); a
/// receive stands right before the action that needs it, and the transport posts it ahead. Boundaries between two
/// stages of one rank need neither. A schedule that already has sends or receives is returned as it is.
[[nodiscard]] VerifiedSchedule lower(const VerifiedSchedule& compute);

}  // namespace penstock
