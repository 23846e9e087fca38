#include "penstock/base/error.h"

#include <algorithm>

namespace penstock {
namespace {

// One line, whatever a name out of a file holds: line ends, zeros, what a terminal obeys.
std::string sentence(const std::string& got, const std::string& expected, const std::string& remedy) {
  std::string text = got + "; expected " + expected + "; " + remedy;
  const auto is_control = [](char letter) { return (letter >= 0 && letter < ' ') || letter == '\x7f'; };
  std::replace_if(text.begin(), text.end(), is_control, ' ');
  return text;
}

}  // namespace

Error bad_input(const std::string& got, const std::string& expected, const std::string& remedy) {
  return {ErrorKind::BadInput, sentence(got, expected, remedy)};
}

Error run_failed(const std::string& got, const std::string& expected, const std::string& remedy) {
  return {ErrorKind::RunFailed, sentence(got, expected, remedy)};
}

std::string counted(std::int64_t count, std::string_view thing) {
  const std::string_view ending = count == 1 ? "" : thing.ends_with("ch") || thing.ends_with("ss") ? "es" : "s";
  return std::to_string(count).append(" ").append(thing).append(ending);
}

std::string shortened(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  const auto continues_character = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U; };
  while (most > 0 && continues_character(text[most])) --most;
  return std::string(text.substr(0, most)) + "…";
}

}  // namespace penstock
