// What one rank measures of a network, together with the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "penstock/exec/microbatch.h"
#include "penstock/nn/layer.h"
#include "penstock/profile/profile.h"

#include "profile/layer_measurement.h"
#include "profile/rank_barrier.h"

namespace penstock {

// One kind of layer, as one rank has measured it.
struct LayerKind {
  std::int64_t layer = 0;        // the first of them
  std::vector<Tensors> inputs;   // by size
  std::vector<Tensors> outputs;  // by size
  // The mean of each round, of passes that begin when all ranks have met, and of passes that follow those at once. A
  // rank that has waited finds its core cold. One that has not has used up its turn, and waits for that of another
  // program. A run has both.
  std::vector<LayerSamples> by_size;
  std::vector<LayerSamples> in_a_row;         // by size; times only
  std::vector<std::vector<double>> round_ms;  // by size and round: of a forward and a backward
  std::vector<double> update_ms;
  Bytes parameter;
  Bytes gradient;
  Bytes optimizer;

  // What a pass goes through: weights, what stands for their gradients, and the activation.
  [[nodiscard]] std::int64_t gone_through(std::size_t size) const {
    return 2 * parameter.count + by_size[size].sizes.activation.count;
  }
};

// What one rank knows at the end: the kinds in the order in which they came, and which of them each layer is.
struct RankProfile {
  std::vector<LayerKind> entries;
  std::vector<std::size_t> entry_of_layer;
  std::int64_t without_gradient = 0;  // the first so many layers
  int rounds = 0;
  double spread = 0;               // as in `Measurement`
  std::vector<double> contention;  // of the rounds in which this rank was the one that computed alone
  std::vector<double> waits_ms;    // for the other ranks, after passes of equal work
};

// Called on the thread of each rank, with a barrier that all of them share. \param microbatches by size.
[[nodiscard]] RankProfile profile_rank(const Network& network, const ProfileSettings& settings,
                                       const std::vector<Microbatch>& microbatches, RankBarrier& rank_barrier,
                                       int rank);

}  // namespace penstock
