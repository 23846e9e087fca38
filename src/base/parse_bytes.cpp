#include "penstock/base/parse_bytes.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fmt/format.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t bytes;
};

// From the largest to the smallest.
constexpr std::array<Unit, 7> units{{{"GiB", 1 << 30},
                                     {"GB", 1'000'000'000},
                                     {"MiB", 1 << 20},
                                     {"MB", 1'000'000},
                                     {"KiB", 1 << 10},
                                     {"KB", 1'000},
                                     {"B", 1}}};

}  // namespace

Bytes parse_bytes(std::string_view setting, const std::string& text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit = std::string_view(text).substr(static_cast<std::size_t>(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const auto& [name, bytes] : units) {
    const double size = number * static_cast<double>(bytes);
    if (error == std::errc() && unit == name && number > 0 && size >= 1 && size < 9e18) return {std::llround(size)};
  }
  throw bad_input(fmt::format("{} is \"{}\"", setting, shortened(text)),
                  "a number with its unit, such as 500MB or 12GiB", fmt::format("correct {}", setting));
}

std::string bytes_text(Bytes size) {
  const auto* const unit =
      std::find_if(units.begin(), units.end(), [&](const Unit& known) { return size.count % known.bytes == 0; });
  return fmt::format("{}{}", size.count / unit->bytes, unit->name);
}

}  // namespace penstock
