#include "penstock/settings/setting_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "penstock/base/error.h"
#include "penstock/base/nearest.h"
#include "penstock/base/parse_bytes.h"

namespace penstock {

void refuse_word(std::string_view name, const std::string& word, const std::vector<std::string>& known) {
  throw bad_input(fmt::format("{} is \"{}\"", field(name), shortened(word)),
                  fmt::format("one of {}", fmt::join(known, ", ")),
                  fmt::format("change {}{}", field(name), did_you_mean(word, known)));
}

void read_setting(std::string_view name, const std::string& text, Bytes& value) {
  value = parse_bytes(field(name), text);
}

void read_setting(std::string_view name, const std::string& text, std::optional<Bytes>& value) {
  value = text.empty() ? std::nullopt : std::optional(parse_bytes(field(name), text));
}

std::string setting_text(Bytes value) { return bytes_text(value); }

std::string setting_text(const std::optional<Bytes>& value) { return value ? bytes_text(*value) : ""; }

}  // namespace penstock
