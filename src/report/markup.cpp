#include "report/markup.h"

#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace penstock {

std::string escape_markup(std::string_view text) {
  std::string out;
  for (const char letter : text) {
    switch (letter) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += letter;
    }
  }
  return out;
}

std::string shade(std::string_view colour, std::size_t position, std::size_t count) {
  if (position + 1 >= count) return std::string(colour);
  constexpr double lightest = 0.5;
  const double white = lightest * static_cast<double>(count - 1 - position) / static_cast<double>(count - 1);
  std::string out = "#";
  for (const std::size_t channel : {1U, 3U, 5U}) {
    int value = 0;
    std::from_chars(colour.data() + channel, colour.data() + channel + 2, value, 16);
    out += fmt::format("{:02x}", std::lround(value + (255 - value) * white));
  }
  return out;
}

}  // namespace penstock
