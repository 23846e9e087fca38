#include <array>
#include <cmath>
#include <fmt/format.h>

#include "penstock/base/types.h"

namespace penstock {

std::string to_string(Bytes bytes) {
  static constexpr std::array<const char*, 5> names{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes.count);
  std::size_t unit = 0;
  // 999.5 and more would print as four figures.
  while (std::abs(value) >= 999.5 && unit + 1 < names.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes.count) : fmt::format("{:.3g} {}", value, names.at(unit));
}

std::string to_string(Milliseconds duration) {
  const double seconds = duration.count / 1000;
  if (seconds < 0.9995) return fmt::format("{:.3g} ms", duration.count);
  if (seconds < 59.95) return fmt::format("{:.3g} s", seconds);
  const auto whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  constexpr long long day = 86'400;
  if (whole >= 2 * day) return fmt::format("{} days", whole / day);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace penstock
