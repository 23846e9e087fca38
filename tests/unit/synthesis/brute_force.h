// The best order of a small pipeline, by looking at all orders: no bound but the one that is searched below.
#pragma once

#include <optional>

#include "synthesis/pipeline_problem.h"

namespace penstock {

// Whether any order has a longest span below `span`. Every beginning of an order is followed by every pass of every
// rank that begins no earlier than the last one; two beginnings with the same passes done are one where neither time of
// the first is later than the second's. Nothing where `most_nodes` beginnings did not suffice.
[[nodiscard]] std::optional<bool> exists_shorter(const PipelineProblem& problem, double span, std::int64_t most_nodes);

}  // namespace penstock
