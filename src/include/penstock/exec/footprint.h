/// \file
/// Which layers are worth running again: how much each keeps for its backward, and what it would cost to compute that
/// once more. Counted from shapes, not timed: the same for every cut, machine and run.
#pragma once

#include <vector>

#include "penstock/base/types.h"
#include "penstock/nn/layer.h"
#include "penstock/nn/precision.h"

namespace penstock {

/// One layer's part in the memory and the work of a forward pass.
struct LayerFootprint {
  /// What the graph keeps beside the layer's inputs and outputs, which its neighbours keep in any case.
  Bytes kept;
  /// Of one forward pass: the operations of its products (matrices, convolutions, attention) and ten for each byte that
  /// it writes, the balance of a processor in a round figure.
  double work = 0;

  friend bool operator==(const LayerFootprint&, const LayerFootprint&) = default;
};

/// Runs a microbatch forward through the network on the host, building one layer at a time, and one of each kind and
/// shape of inputs. \param inputs of the first layer, of which only shapes and dtypes matter. \throws whatever a
/// layer throws.
[[nodiscard]] std::vector<LayerFootprint> layer_footprints(const Network& network, const Tensors& inputs,
                                                           Precision precision = Precision::Float32);

/// By layer, whether to run it again so that about half of what all could free is freed for the least work: those
/// that keep most for their work come first, and of equal ones such that they spread evenly over the network, and so
/// over the stages of any cut. Never the last layer, whose backward follows its forward at once in nearly every
/// schedule.
[[nodiscard]] std::vector<bool> select_recomputed(const std::vector<LayerFootprint>& footprints);

}  // namespace penstock
