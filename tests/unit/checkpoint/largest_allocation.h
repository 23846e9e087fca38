/// \file
/// The largest piece of memory that a stretch of code asks `new` for.
#pragma once

#include <cstddef>

namespace penstock {

/// Forgets what was asked for on this thread until now.
void reset_largest_allocation();

/// The largest request on this thread since then, in bytes.
[[nodiscard]] std::size_t largest_allocation();

}  // namespace penstock
