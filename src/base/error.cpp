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

std::string field(std::string_view name) {
  std::string text("`");
  text.append(name).append("`");
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

std::string with_fields_named(std::string_view text,
                              const std::function<std::string(const std::string& name)>& name_of) {
  std::string named;
  for (;;) {
    const std::size_t begin = text.find('`');
    const std::size_t end = begin == std::string_view::npos ? begin : text.find('`', begin + 1);
    if (end == std::string_view::npos) return named.append(text);
    const std::string_view name = text.substr(begin + 1, end - begin - 1);
    const bool is_name = !name.empty() && name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == name.npos;
    const std::string instead = is_name ? name_of(std::string(name)) : std::string();
    // The second quote may begin a name where the first began none.
    const std::size_t taken = is_name ? end + 1 : end;
    named.append(text.substr(0, instead.empty() ? taken : begin)).append(instead);
    text.remove_prefix(taken);
  }
}

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
