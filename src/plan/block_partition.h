/// \file
/// The balance by time of torchgpipe (arXiv 2004.09910): Bárány and Grinberg's block partition (arXiv 1308.2452).
#pragma once

#include <vector>

#include "penstock/plan/plan.h"

namespace penstock {

/// Blocks of a sequence whose sums differ by at most the largest element. Not optimal; here to be compared with.
[[nodiscard]] Cut block_partition_cut(const std::vector<double>& weights, int stages);

}  // namespace penstock
