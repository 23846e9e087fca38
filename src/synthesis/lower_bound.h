// How short a step can possibly be, without a search.
#pragma once

#include "synthesis/pipeline_problem.h"

namespace penstock {

// No order of the problem has a longest span below this. Of each rank: all its work, and the wait for its first input
// gradient, which the caps leave it only so many forwards to fill with. Of each stage: its last input gradient comes
// after all its forwards and input gradients, and after the weight gradients without which the caps have no room for
// its last forward; from there one microbatch has to go all the way back.
[[nodiscard]] double span_lower_bound(const PipelineProblem& problem);

}  // namespace penstock
