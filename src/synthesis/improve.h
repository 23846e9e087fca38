// Local improvement of an order: passes on the critical path are moved along their rank's row.
#pragma once

#include <cstdint>
#include <functional>

#include "synthesis/evaluator.h"

namespace penstock {

// How many orders are tried between two questions of what is spent: a question costs about as much as playing a small
// pipeline.
constexpr std::int64_t rounds_between_questions(const PipelineProblem& problem) {
  return std::int64_t{problem.stages} * problem.microbatches > 1000 ? 1 : 16;
}

struct ImproveOptions {
  std::uint64_t seed = 1;
  double bound = 0;               // where the longest span is this short there is nothing to gain
  std::function<double()> spent;  // the share of the budget that is used up, from 0; the search ends at 1
};

// Simulated annealing from `order`, whose score is `score`; both become the best that was found. Never worse.
void improve(const PipelineProblem& problem, Evaluator& evaluator, PassOrder& order, SpanScore& score,
             const ImproveOptions& options);

}  // namespace penstock
