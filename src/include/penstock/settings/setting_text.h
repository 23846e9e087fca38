/// \file
/// Settings that are one text on the command line and in TOML: each of their types has one form, which `read_setting`
/// reads and `setting_text` writes. Numbers, texts and lists of texts are not here: both have them by themselves.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/settings/settings.h"

namespace penstock {

/// The choices of a run.
template <class Value>
concept Choice = std::same_as<Value, CutChoice> || std::same_as<Value, ScheduleChoice> ||
                 std::same_as<Value, Microbatches> || std::same_as<Value, Ranks> || std::same_as<Value, Recompute> ||
                 std::same_as<Value, ModelChoice> || std::same_as<Value, FrozenLayers>;

/// A number, or auto: in TOML it stands without quotes where it is a number.
template <class Value>
concept CountChoice = std::same_as<Value, Microbatches> || std::same_as<Value, Ranks>;

/// Refuses a word: "`model` is "lstm"; expected one of gpt, mlp, convnet". \param name of the setting.
[[noreturn]] void refuse_word(std::string_view name, const std::string& word, const std::vector<std::string>& known);

/// Reads a choice. \throws Error (BadInput) that names the setting.
template <Choice Value>
void read_setting(std::string_view /*name*/, const std::string& text, Value& value) {
  value = Value(text);
}
/// Reads a kind by its word. \param name of the setting, for the message. \throws Error (BadInput)
template <HasWords Kind>
void read_setting(std::string_view name, const std::string& text, Kind& value) {
  const auto kind = kind_named<Kind>(text);
  if (!kind) refuse_word(name, text, words_of<Kind>());
  value = *kind;
}
/// The same; "auto" is none.
template <HasWords Kind>
void read_setting(std::string_view name, const std::string& text, std::optional<Kind>& value) {
  value = kind_named<Kind>(text);
  if (value || text == "auto") return;
  std::vector<std::string> known = words_of<Kind>();
  known.insert(known.begin(), "auto");
  refuse_word(name, text, known);
}
/// Reads a size with its unit. \param name of the setting, for the message. \throws Error (BadInput)
void read_setting(std::string_view name, const std::string& text, Bytes& value);
/// The same; an empty text is none.
void read_setting(std::string_view name, const std::string& text, std::optional<Bytes>& value);

/// The text that `read_setting` reads as this choice.
template <Choice Value>
[[nodiscard]] std::string setting_text(const Value& value) {
  return to_text(value);
}
/// The text that `read_setting` reads as this kind.
template <HasWords Kind>
[[nodiscard]] std::string setting_text(Kind value) {
  return word_of(value);
}
/// The same; "auto" for none.
template <HasWords Kind>
[[nodiscard]] std::string setting_text(const std::optional<Kind>& value) {
  return value ? word_of(*value) : "auto";
}
/// The text that `read_setting` reads as this size, to the byte.
[[nodiscard]] std::string setting_text(Bytes value);
/// The same; nothing for none.
[[nodiscard]] std::string setting_text(const std::optional<Bytes>& value);

/// A type that they are for.
template <class Value>
concept TextSetting = requires(const std::string& text, Value& value, const Value& known) {
  read_setting("", text, value);
  { setting_text(known) } -> std::same_as<std::string>;
};

}  // namespace penstock
