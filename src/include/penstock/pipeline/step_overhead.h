/// \file
/// What a step takes on this machine whatever the network: ranks that wake and meet, the norm's way over all of them,
/// the minibatch's cut.
#pragma once

#include "penstock/base/types.h"

namespace penstock {

/// The median of a few dozen steps of a pipeline of so many ranks, threads of this process on the host, whose layers do
/// next to nothing: of each what is left beside its passes. A part of `LayerCosts`. \throws Error (BadInput) for less
/// than one rank or thread.
[[nodiscard]] Milliseconds measured_step_overhead(int ranks, int threads_per_rank);

}  // namespace penstock
