/// \file
/// What tied parameters mean for a plan: the exchange of their gradients, and cuts that need none.
#pragma once

#include <cstdint>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// One way to keep ties: a rank for each layer that shares a parameter.
struct TieWay {
  std::vector<std::int32_t> rank_of_layer;  ///< −1: shares nothing, and may be anywhere
  std::vector<bool> may_begin_stage;        ///< by layer; empty: any
};

/// How a placement can have all layers of each tie on one rank.
class TiedLayers {
 public:
  /// \param rank_of by stage.
  TiedLayers(const std::vector<LayerTie>& ties, std::vector<std::int32_t> rank_of, std::size_t layers);

  /// Every cut that keeps the ties goes one of these ways, and each has such a cut. Where layers share parameters in so
  /// many ways that the ways cannot be tried one by one, a single one stands for the cuts that keep the layers of each
  /// tie in one stage. Empty: there is no cut.
  [[nodiscard]] const std::vector<TieWay>& ways() const { return ways_; }
  [[nodiscard]] bool are_kept_by(const Cut& cut) const;
  /// Whether a stage may have the layer.
  [[nodiscard]] bool may_hold(const TieWay& way, std::size_t stage, std::size_t layer) const {
    return way.rank_of_layer[layer] < 0 || way.rank_of_layer[layer] == rank_of_[stage];
  }

 private:
  void find_ways(TieWay& way, std::size_t group, const std::vector<std::vector<std::int32_t>>& choices);
  [[nodiscard]] std::vector<std::int32_t> ranks_for(const std::vector<std::size_t>& group) const;
  [[nodiscard]] bool has_cut(const TieWay& way) const;
  [[nodiscard]] TieWay within_stages() const;

  std::vector<std::int32_t> rank_of_;
  std::size_t layers_;
  std::vector<std::vector<std::size_t>> groups_;  ///< of layers that share a parameter with each other; ascending
  std::vector<TieWay> ways_;
};

/// Adds to `time`, by rank when it is done with what comes before, the exchange of the gradients of tied parameters:
/// the copies' to the rank of the owner, and the sum once to each rank of a copy. Of several holders the first do it.
void add_tied_exchange(const std::vector<LayerTie>& ties, const Cut& cut, const Placement& placement, const Cost& cost,
                       std::vector<double>& time);

/// Raises `memory`, the peak of each rank in the passes, to what the rank of an owner holds while it adds gradients:
/// what stands, gradients that have arrived, and the sum beside its summands.
void add_tied_memory(const std::vector<LayerTie>& ties, const Cut& cut, const Placement& placement, const Cost& cost,
                     std::vector<Bytes>& memory);

/// The first holder of a layer's stage.
[[nodiscard]] RankId rank_of_layer(const Cut& cut, const Placement& placement, std::int64_t layer);

}  // namespace penstock
