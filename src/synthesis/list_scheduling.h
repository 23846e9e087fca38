// List scheduling: the pipeline is played forward, and each free rank begins what its policy prefers among what is
// ready. The search starts from the orders of many policies (after arXiv 2401.10241, section 3.1, whose heuristic is
// one).
#pragma once

#include "synthesis/pipeline_problem.h"

namespace penstock {

// How a rank chooses.
struct ListPolicy {
  // A weight gradient begins when a forward or an input gradient would keep the rank waiting for more than this share
  // of its time: 0 fills every gap, 1 only those into which it fits.
  double patience = 1;
  // Input gradients are preferred to forwards that could begin this much earlier, in times of a forward.
  double backward_bias = 0;
  // Most microbatches between a stage's F and I, in parts of the stages that are left to the end of the pipeline;
  // 0: as many as the caps allow.
  double flight = 0;
  // If passes of two stages of a rank are ready, whether the later stage comes first.
  bool later_stage_first = true;
  // Most weight gradients that may wait while the rank still has forwards to do; one more, and a weight gradient comes
  // before all else.
  int waiting_weights = std::numeric_limits<int>::max();
  // If a forward and an input gradient are both ready, which comes first.
  bool forward_first = false;
};

// Legal within the caps, and complete, for every policy; the caps must hold one microbatch on all stages of a rank.
[[nodiscard]] PassOrder play_list(const PipelineProblem& problem, const ListPolicy& policy);

// The forwards and input gradients of `order` as they are, its weight gradients put where the policy wants them. Empty
// where an order of another problem does not fit under the caps.
[[nodiscard]] PassOrder place_weights(const PipelineProblem& problem, const PassOrder& order, const ListPolicy& policy);

// A variety of policies, in a fixed order.
[[nodiscard]] std::vector<ListPolicy> list_policies();

}  // namespace penstock
