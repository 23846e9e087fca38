/// \file
/// The cap of a rank that has none.
#pragma once

#include <limits>

namespace penstock {

inline constexpr double no_cap = std::numeric_limits<double>::infinity();

}  // namespace penstock
