/// \file
/// Synthesis: an order of passes for the stages and links as they are, in place of a hand-made schedule.
///
/// Where hand-made schedules assume equal stages and free links, this one plays the pipeline with its real costs under
/// many policies (after arXiv 2401.10241, section 3.1), takes in the published schedules of the same placement, moves
/// passes along the critical path of the best (simulated annealing), and for small pipelines goes on to the optimum by
/// branch and bound. The backward is always split.
///
///     const penstock::Placement placement = penstock::v_placement(4);
///     const penstock::SynthesisSettings settings{.ranks = 4, .microbatches = 8, .placement = placement};
///     const penstock::Synthesis found = penstock::synthesise(settings, cost, penstock::SteadyClock());
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// What to synthesise, and how long to try.
struct SynthesisSettings {
  int ranks = 1;
  int microbatches = 1;
  Placement placement;  ///< one holder a stage; as many stages as the cost has
  /// By rank, the most activations of one microbatch on one stage; one for all ranks, or none. After its `I` a
  /// microbatch counts as the `weight_activation_share` of its stage's cost. `Cost::memory_caps`, in bytes as
  /// `simulate` counts them, holds as well.
  std::vector<int> memory_caps;
  Milliseconds budget{1500};          ///< of the clock: then the best so far is taken, and verified and simulated
  std::int64_t most_evaluations = 0;  ///< instead of the budget if it is above 0: then the result never varies
  std::uint64_t seed = 1;             ///< of the annealing
};

/// A synthesised schedule and how good it is.
struct Synthesis {
  VerifiedSchedule schedule;
  Timeline timeline;            ///< simulated
  Milliseconds longest_span;    ///< of any rank, from its first to its last pass: what was made short
  Milliseconds lower_bound;     ///< no schedule of this placement under these caps has a shorter longest span
  bool proved_optimal = false;  ///< by branch and bound, or because it meets the bound
  std::string best_generator;   ///< the published schedule of this placement that is best under the caps; or empty
  Milliseconds generator_span;  ///< its longest span
};

/// Pipelines up to these sizes are synthesised. Of the largest, one order takes a part of a second.
constexpr int most_synthesised_stages = 10'000;
constexpr int most_synthesised_stages_per_rank = 100;
constexpr int most_synthesised_passes = 500'000;  ///< stages times microbatches

/// \throws Error (BadInput) if a size is below 1, or above those that are synthesised.
void check_synthesis_sizes(int ranks, int stages_per_rank, int microbatches);

/// Never worse than the best generator of the same placement under the same caps, as far as the budget was enough to
/// play them. The budget is checked between two orders: an order that was begun is played to its end, and at least one
/// is played. The generators come first, the later published before the earlier. Thread-safe.
/// \throws Error (BadInput) if settings and cost do not fit each other, for sizes above those that are synthesised,
/// and if no schedule meets the caps: the message says the smallest caps that a schedule meets. With caps, a
/// `weight_activation_share` above 1 is refused too.
[[nodiscard]] Synthesis synthesise(const SynthesisSettings& settings, const Cost& cost, const Clock& clock);

}  // namespace penstock
