/// \file
/// How many drawn cases a test tries: all in an ordinary build, a tenth in an instrumented one, which is tens of times
/// slower and looks for what each kind of case does to memory, not for the rare case.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace penstock {

#if defined(PENSTOCK_SANITIZED_ADDRESS) || defined(PENSTOCK_SANITIZED_THREAD)
inline constexpr bool instrumented = true;
#else
inline constexpr bool instrumented = false;
#endif

/// A number from the environment, for long runs and for the one case that failed.
inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

constexpr int drawn_cases(int all) { return instrumented ? std::max(1, all / 10) : all; }

}  // namespace penstock
