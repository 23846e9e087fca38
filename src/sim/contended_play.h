/// \file
/// The play of ranks that take from each other what the machine has.
#pragma once

#include "sim/play.h"

namespace penstock {

/// As `play`, of at least two ranks whose passes take as long as the costs say only while all of them compute, and less
/// while some wait (`Cost::contention`).
[[nodiscard]] Play contended_play(const Schedule& schedule, const Cost& cost, const Updates& updates);

}  // namespace penstock
