/// \file
/// From the cut of the dynamic programming to one that is better in simulation: short steps have fill and drain, which
/// the slowest stage does not know of.
#pragma once

#include "plan/evaluation.h"

namespace penstock {

/// Tries the cuts that others would take (uniform, by parameters, by time after torchgpipe), all cuts where there are
/// few, and otherwise moves boundaries as long as the step gets shorter. Never worse than `candidate`, and within the
/// caps where that is. \param most_passes that may be simulated.
void refine(Evaluation& evaluation, std::int64_t most_passes, Candidate& candidate);

}  // namespace penstock
