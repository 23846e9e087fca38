#include "penstock/base/quantile.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

namespace penstock {

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = share * static_cast<double>(values.size() - 1);
  const auto before = static_cast<std::size_t>(place);
  const std::size_t after = std::min(before + 1, values.size() - 1);
  return values[before] + (values[after] - values[before]) * (place - std::floor(place));
}

double mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

double error_of_median(const std::vector<double>& values) {
  constexpr double quartile_factor = 0.929;  // 1.2533 (of a median, by a mean) × 0.7413 (of a standard deviation)
  if (values.empty()) return 0;
  return quartile_factor * (quantile(values, 0.75) - quantile(values, 0.25)) /
         std::sqrt(static_cast<double>(values.size()));
}

}  // namespace penstock
