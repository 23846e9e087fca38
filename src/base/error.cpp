#include "penstock/base/error.h"

namespace penstock {
namespace {

std::string sentence(const std::string& got, const std::string& expected, const std::string& remedy) {
  return got + "; expected " + expected + "; " + remedy;
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
