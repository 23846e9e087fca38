// The schedule that a pipeline evaluates with.
#pragma once

#include "penstock/schedule/verify.h"

namespace penstock {

// Lowered, of the placement of `training`, for any number of microbatches, which its replicas share out among
// themselves; those that would have none are left out.
[[nodiscard]] VerifiedSchedule forward_schedule(const Schedule& training, int replicas, int microbatches);

}  // namespace penstock
