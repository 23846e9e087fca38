#include "train/setting_words.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

}  // namespace

std::vector<bool> recomputed_layers(const std::string& text, std::int64_t layers) {
  if (text == "none") return {};
  std::vector<bool> recomputed(static_cast<std::size_t>(layers), text == "full");
  if (text == "full") return recomputed;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, end - begin);
    const std::size_t dash = part.find('-');
    const auto first = whole_number(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : whole_number(part.substr(dash + 1));
    if (!first || !last || *first > *last || *last >= layers)
      throw bad_input(fmt::format("--recompute is \"{}\"", text),
                      fmt::format("none, full, selected, or layers from 0 to {}, such as 1-4,7", layers - 1),
                      "correct --recompute");
    for (std::int64_t layer = *first; layer <= *last; ++layer) recomputed[static_cast<std::size_t>(layer)] = true;
    begin = end + 1;
  }
  return recomputed;
}

std::string words_of_layers(const std::vector<bool>& layers) {
  std::string words;
  for (std::size_t first = 0; first < layers.size(); ++first) {
    if (!layers[first]) continue;
    std::size_t last = first;
    while (last + 1 < layers.size() && layers[last + 1]) ++last;
    words += fmt::format("{}{}", words.empty() ? "" : ",", first);
    if (last > first) words += fmt::format("-{}", last);
    first = last;
  }
  return words.empty() ? "none" : words;
}

Bytes parse_bytes(const char* setting, const std::string& text) {
  if (text.empty()) return {};
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
  throw bad_input(fmt::format("--{} is \"{}\"", setting, text), "a number with its unit, such as 500MB or 12GiB",
                  fmt::format("correct --{}", setting));
}

}  // namespace penstock
