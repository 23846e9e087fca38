/// \file
/// Whether a plan from measured costs can be compared with one from others. Free of libtorch.
#pragma once

namespace penstock {

/// A standard error of the median, as a share of it (`Measurement::spread`), from which on the times of two
/// measurements say nothing about which is the faster.
inline constexpr double incomparable_spread = 0.2;

}  // namespace penstock
