// What the ranks tell each other at the end of a step: losses, squares of gradients' norms, and how fast they were.
#pragma once

#include <vector>

#include "penstock/pipeline/pipeline.h"

namespace penstock {

// Sums over all ranks, before an update.
struct Totals {
  std::vector<MicrobatchLoss> losses;
  double loss_sum = 0;
  double weight = 0;
  double scaled_norm = 0;       // of the summed gradient: neither divided by the weight nor by the loss scale
  std::vector<double> pace_ms;  // by rank
};

// In float64, by tensor, in one pass a dtype: a norm of half precision would overflow, or round to a few digits.
// \param gradients at least one, all on one device.
[[nodiscard]] at::Tensor norms_of(const std::vector<at::Tensor>& gradients);

// Adds up what the ranks have sent, each: its pace, the number of its losses, the losses and their weights, then three
// numbers for each parameter: its layer, its place in it, and the square of its norm. Losses by microbatch and squares
// by parameter, so that they add up in one order whichever rank computed them.
[[nodiscard]] Totals sum_totals(const std::vector<std::vector<double>>& by_rank, int microbatches);

}  // namespace penstock
