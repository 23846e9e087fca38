#include "penstock/settings/setting_words.h"

#include <charconv>
#include <fmt/format.h>
#include <numeric>
#include <optional>
#include <string_view>

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
  // Marked by their ends: there may be as many ranges as layers, and each as long.
  std::vector<std::int64_t> ends(static_cast<std::size_t>(layers) + 1);
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, end - begin);
    const std::size_t dash = part.find('-');
    const auto first = whole_number(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : whole_number(part.substr(dash + 1));
    if (!first || !last || *first > *last || *last >= layers)
      throw bad_input(fmt::format("`recompute` is \"{}\"", shortened(text)),
                      fmt::format("none, full, selected, or layers from 0 to {}, such as 1-4,7", layers - 1),
                      "correct `recompute`");
    ++ends[static_cast<std::size_t>(*first)];
    --ends[static_cast<std::size_t>(*last) + 1];
    begin = end + 1;
  }
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  for (std::size_t layer = 0; layer < recomputed.size(); ++layer) recomputed[layer] = ends[layer] > 0;
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

}  // namespace penstock
