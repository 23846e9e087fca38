// Synthesis as a scheduling problem in plain arrays, since the search evaluates orders some hundred thousand times.
#pragma once

#include <cstdint>
#include <vector>

#include "penstock/base/index.h"
#include "penstock/cost/cost.h"
#include "penstock/cost/ledger.h"
#include "penstock/schedule/verify.h"

namespace penstock {

// The passes of a stage that are ordered: F, I and W. A whole backward is an I followed by its W, which is never
// slower.
constexpr std::int32_t pass_kinds = 3;
static_assert(static_cast<std::int32_t>(Pass::WeightBackward) == pass_kinds - 1);

// A pass of a stage without its microbatch: passes of one kind and stage take the microbatches in order, so that the
// n-th of them is that of microbatch n. Nothing is lost by that: microbatches are alike, and if the n-th forward of a
// stage is that of microbatch n, no input arrives later than it did.
using PassCode = std::int32_t;

constexpr PassCode code_of(std::int32_t stage, Pass pass) {
  return stage * pass_kinds + static_cast<std::int32_t>(pass);
}
constexpr std::int32_t stage_of(PassCode code) { return code / pass_kinds; }
constexpr Pass pass_of(PassCode code) { return static_cast<Pass>(code % pass_kinds); }

// For each rank its passes in order.
using PassOrder = std::vector<std::vector<PassCode>>;

// How a boundary crosses from a stage to a neighbour.
struct Hop {
  std::int32_t link = -1;  // one number for each ordered pair of ranks; -1 within a rank
  double transfer = 0;     // for which the message occupies the link
  double latency = 0;
};

struct PipelineProblem {
  std::int32_t ranks = 0;
  std::int32_t stages = 0;
  std::int32_t microbatches = 0;
  std::int32_t links = 0;
  std::vector<std::int32_t> rank_of;                 // by stage
  std::vector<std::vector<std::int32_t>> stages_of;  // by rank, ascending
  std::vector<double> duration;                      // by code
  std::vector<Hop> down;                             // by stage: to the next one
  std::vector<Hop> up;                               // by stage: to the one before it
  std::vector<double> activation;                    // by stage: bytes
  std::vector<double> activation_for_weights;        // by stage: bytes that stay between I and W
  std::vector<double> weight_share;                  // by stage: as what part of an activation those are counted
  std::vector<double> count_cap;                     // by rank: most activations
  std::vector<double> byte_cap;                      // by rank: most bytes of activations
  std::vector<double> first_start;  // by rank: the forward of microbatch 0 always comes first, at this time
  std::vector<double> busy;         // by rank: the sum of all its passes

  [[nodiscard]] std::size_t slot(std::int32_t stage, std::int32_t microbatch) const {
    return as_size(stage) * as_size(microbatches) + as_size(microbatch);
  }
};

// The activations that a rank holds, counted and in bytes.
struct HeldActivations {
  double count = 0;
  double bytes = 0;

  // What a forward takes when it begins.
  void begin_forward(const PipelineProblem& problem, std::int32_t stage) {
    count += 1;
    bytes += entry(problem.activation, stage);
  }
  // What a pass gives back when it ends.
  void end(const PipelineProblem& problem, PassCode code) {
    const auto stage = as_index(stage_of(code));
    if (pass_of(code) == Pass::InputBackward) {
      count += problem.weight_share[stage] - 1;
      bytes += problem.activation_for_weights[stage] - problem.activation[stage];
    } else if (pass_of(code) == Pass::WeightBackward) {
      count -= problem.weight_share[stage];
      bytes -= problem.activation_for_weights[stage];
    }
  }
  // Sums of shares are exact only to the last bits; sums of bytes are whole numbers.
  [[nodiscard]] bool fits(const PipelineProblem& problem, std::size_t rank) const {
    return count <= problem.count_cap[rank] + 1e-6 && bytes <= problem.byte_cap[rank];
  }
};

// `count_cap` and `byte_cap` have one entry for each rank.
[[nodiscard]] PipelineProblem make_problem(const Placement& placement, int ranks, int microbatches, const Cost& cost,
                                           std::vector<double> count_cap, std::vector<double> byte_cap);

// Whether each microbatch's passes of a stage come in the order F, I, W and the rank never exceeds its caps. Says
// nothing of what other ranks do.
[[nodiscard]] bool is_row_legal(const PipelineProblem& problem, std::int32_t rank, const std::vector<PassCode>& row);

// The passes of a schedule with the same placement; a `B` becomes `I`, `W`.
[[nodiscard]] PassOrder order_of(const Schedule& schedule);

// With the microbatches counted.
[[nodiscard]] Schedule schedule_of(const PipelineProblem& problem, const Placement& placement, const PassOrder& order);

}  // namespace penstock
