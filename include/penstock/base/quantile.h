/// \file
/// What is in the middle of measurements, and how far they spread.
#pragma once

#include <vector>

namespace penstock {

/// The value below which a share of `values` lies: 0.5 for the median, on the line between two neighbours. 0 where
/// there are none. \param share in [0, 1].
[[nodiscard]] double quantile(std::vector<double> values, double share);

}  // namespace penstock
