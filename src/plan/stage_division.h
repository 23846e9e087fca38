/// \file
/// Cuts by dynamic programming. They make the slowest stage, its links included, as fast as caps on memory allow.
#pragma once

#include <optional>
#include <vector>

#include "penstock/base/index.h"
#include "penstock/cost/cost.h"
#include "penstock/cost/layers_at_size.h"
#include "penstock/cost/ledger.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/verify.h"

#include "plan/ties.h"

namespace penstock {

/// For each stage the fullest moments of a step: no entry has at most as many of both kinds as another one. A stage
/// with two holders has the entries of both.
[[nodiscard]] std::vector<std::vector<HeldMicrobatches>> held_microbatches(const Schedule& schedule);

/// Where a stage would run.
struct StagePlace {
  double speed = 1;
  double cap = no_cap;  ///< bytes that the stage may take
  LinkCost to_next = {};
  LinkCost to_previous = {};
  std::vector<HeldMicrobatches> held = {};  ///< needed only if there is a cap
};

/// A cut and which of its stages recompute.
struct Division {
  Cut cut;
  std::vector<bool> recomputed;

  friend bool operator==(const Division&, const Division&) = default;
};

/// What is divided.
struct DivisionProblem {
  const LayersAtSize* layers = nullptr;
  std::vector<StagePlace> places;  ///< by stage, at most as many as layers
  bool split_backward = false;
  int kept_gradients = 0;  ///< as in `StageRun`
  Recomputation recomputation = Recomputation::None;
  const TiedLayers* ties = nullptr;  ///< to be kept, each on one rank; null: none
};

/// The memory that a stage takes at its peak, estimated by the ledger from the counts of its place.
[[nodiscard]] double memory_of_stage(const DivisionProblem& problem, std::size_t stage, std::size_t first,
                                     std::size_t end, bool recomputed);

/// The time that a microbatch keeps the slowest of a stage and its two links busy.
[[nodiscard]] double pace_of_stage(const DivisionProblem& problem, std::size_t stage, std::size_t first,
                                   std::size_t end, bool recomputed);

/// The division whose slowest pace is fastest; of these, one with the least sum of times. Exact. Nothing if no
/// division is within the caps, or keeps the ties.
[[nodiscard]] std::optional<Division> fastest_division(const DivisionProblem& problem);

/// The division whose fullest stage is furthest below its cap, or least above it. There is one that keeps the ties.
[[nodiscard]] Division leanest_division(const DivisionProblem& problem);

/// Moves the boundaries of a division, one layer at a time, as long as the busiest rank gets less to do: for ranks
/// with several stages. \param rank_of by stage. Caps are not looked at.
void even_out_ranks(const DivisionProblem& problem, const std::vector<std::int32_t>& rank_of, Division& division);

/// The end of a stage of a cut.
[[nodiscard]] inline std::size_t end_of(const Cut& cut, std::size_t stage, std::size_t layers) {
  return stage + 1 < cut.size() ? as_index(cut[stage + 1]) : layers;
}

}  // namespace penstock
