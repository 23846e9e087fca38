/// \file
/// How many drawn cases a test tries: all in an ordinary build, a tenth in an instrumented one, which is tens of times
/// slower and looks for what each kind of case does to memory, not for the rare case.
#pragma once

#include <algorithm>

namespace penstock {

#if defined(PENSTOCK_SANITIZED_ADDRESS) || defined(PENSTOCK_SANITIZED_THREAD)
inline constexpr bool instrumented = true;
#else
inline constexpr bool instrumented = false;
#endif

constexpr int drawn_cases(int all) { return instrumented ? std::max(1, all / 10) : all; }

}  // namespace penstock
