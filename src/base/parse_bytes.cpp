#include "penstock/base/parse_bytes.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {

Bytes parse_bytes(std::string_view setting, const std::string& text) {
  constexpr std::array<std::pair<std::string_view, double>, 7> units{{{"KiB", 1024.0},
                                                                      {"MiB", 1024.0 * 1024},
                                                                      {"GiB", 1024.0 * 1024 * 1024},
                                                                      {"KB", 1e3},
                                                                      {"MB", 1e6},
                                                                      {"GB", 1e9},
                                                                      {"B", 1}}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit = std::string_view(text).substr(static_cast<std::size_t>(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const auto& [name, bytes] : units)
    if (error == std::errc() && unit == name && number > 0 && number * bytes >= 1 && number * bytes < 9e18)
      return {std::llround(number * bytes)};
  throw bad_input(fmt::format("{} is \"{}\"", setting, shortened(text)),
                  "a number with its unit, such as 500MB or 12GiB", fmt::format("correct {}", setting));
}

}  // namespace penstock
