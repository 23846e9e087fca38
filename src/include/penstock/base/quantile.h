/// \file
/// The mean, the median and other quantiles of measurements.
#pragma once

#include <vector>

namespace penstock {

/// The value below which a share of `values` lies, linear between the two neighbours of that place. 0 if there are no
/// values. \param share in [0, 1]; 0.5 gives the median.
[[nodiscard]] double quantile(std::vector<double> values, double share);

/// 0 if there are no values.
[[nodiscard]] double mean(const std::vector<double>& values);

/// `quantile` of one half. 0 if there are no values.
[[nodiscard]] double median(std::vector<double> values);

/// The standard error of the median of values that are spread as a normal distribution, from their middle half: a
/// single outlier does not move it. 0 if there are no values.
[[nodiscard]] double error_of_median(const std::vector<double>& values);

}  // namespace penstock
