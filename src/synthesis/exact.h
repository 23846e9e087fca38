// The best order of a small pipeline, by branch and bound.
#pragma once

#include <cstdint>
#include <functional>

#include "synthesis/pipeline_problem.h"

namespace penstock {

enum class ExactAnswer { Found, ThereIsNone, GaveUp };

// Looks for an order whose longest span is shorter than `span`, and puts it into `order`. Looks, with one
// stage a rank, at the active orders (Giffler and Thompson 1960), else at all; leaves out what a bound, or a beginning
// that was already looked at and is nowhere later, shows to be no better. Small pipelines, of up to about a hundred
// passes, take milliseconds.
[[nodiscard]] ExactAnswer find_shorter(const PipelineProblem& problem, double span, std::int64_t most_nodes,
                                       const std::function<bool()>& out_of_time, PassOrder& order);

}  // namespace penstock
