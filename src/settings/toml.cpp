#include <algorithm>
#include <concepts>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <optional>
#include <toml++/toml.h>
#include <type_traits>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/nearest.h"
#include "penstock/base/text_limits.h"
#include "penstock/settings/checks.h"
#include "penstock/settings/setting_text.h"
#include "penstock/settings/settings.h"
#include "penstock/settings/toml_text.h"
#include "penstock/settings/visit_settings.h"

namespace penstock {
namespace {

std::string nearest_setting(std::string_view unknown) {
  std::vector<std::string> names;
  const TrainSettings settings;
  visit_settings(settings, [&](SettingGroup, const char* name, const auto&, const char*) { names.emplace_back(name); });
  return nearest_word(unknown, names).value_or("");
}

template <class Value>
constexpr const char* type_name() {
  if constexpr (std::same_as<Value, bool>) return "true or false";
  if constexpr (std::same_as<Value, std::optional<bool>>) return "true, false or \"auto\"";
  if constexpr (std::integral<Value> || CountChoice<Value>) return "a whole number";
  if constexpr (std::floating_point<Value>) return "a number";
  if constexpr (std::same_as<Value, std::string> || TextSetting<Value>) return "a text in quotes";
  return "a list of texts";
}

// No value where the node is of another type.
template <class Value>
std::optional<Value> read_node(const toml::node& node) {
  if constexpr (std::same_as<Value, std::vector<std::string>>) {
    if (const auto text = node.value_exact<std::string>()) return Value{*text};
    const toml::array* list = node.as_array();
    if (list == nullptr) return std::nullopt;
    Value values;
    for (const toml::node& element : *list) {
      const auto text = element.value_exact<std::string>();
      if (!text) return std::nullopt;
      values.push_back(*text);
    }
    return values;
  } else if constexpr (std::floating_point<Value>) {
    return node.value<double>();
  } else if constexpr (std::same_as<Value, std::optional<bool>>) {
    if (node.value_exact<std::string>() == "auto") return Value();
    const auto chosen = node.value_exact<bool>();
    return chosen ? std::optional<Value>(*chosen) : std::nullopt;
  } else if constexpr (CountChoice<Value>) {
    if (node.value_exact<std::string>() == to_text(Value(automatic))) return Value(automatic);
    const auto number = read_node<int>(node);
    return number ? std::optional(Value(*number)) : std::nullopt;
  } else if constexpr (std::integral<Value> && !std::same_as<Value, bool>) {
    const auto number = node.value_exact<std::int64_t>();
    if (!number || !std::in_range<Value>(*number)) return std::nullopt;
    return static_cast<Value>(*number);
  } else {
    return node.value_exact<Value>();
  }
}

// What stands behind it no system call would see.
bool holds_zero(const std::string& text) { return text.find('\0') != std::string::npos; }
bool holds_zero(const std::vector<std::string>& texts) {
  return std::any_of(texts.begin(), texts.end(), [](const std::string& text) { return holds_zero(text); });
}

std::string toml_value(bool value) { return value ? "true" : "false"; }
std::string toml_value(const std::optional<bool>& value) { return value ? toml_value(*value) : "\"auto\""; }
std::string toml_value(std::integral auto value) { return fmt::format("{}", value); }
std::string toml_value(double value) { return toml_text(value); }
std::string toml_value(const std::string& value) { return toml_text(value); }
template <TextSetting Value>
std::string toml_value(const Value& value) {
  if constexpr (CountChoice<Value>)
    if (!value.is_automatic()) return setting_text(value);
  return toml_text(setting_text(value));
}
std::string toml_value(const std::vector<std::string>& values) {
  std::vector<std::string> elements;
  std::transform(values.begin(), values.end(), std::back_inserter(elements),
                 [](const std::string& value) { return toml_text(value); });
  return fmt::format("[{}]", fmt::join(elements, ", "));
}

/// Throws where a text, or one of a list, holds a zero byte.
template <class Text>
void refuse_zero(const std::string& where, std::string_view name, const Text& text) {
  if (holds_zero(text))
    throw bad_input(fmt::format("{}: {} holds a zero byte", where, name), "a text without one", "remove it");
}

/// Reads one key. \param where file and line, for the message.
template <class Value>
void read_value(const std::string& where, const char* name, const toml::node& node, Value& value) {
  const auto other_type = [&] {
    return bad_input(fmt::format("{}: {} is of another type", where, name), type_name<Value>(),
                     fmt::format("write it like: {} = {}", name, toml_value(value)));
  };
  if constexpr (TextSetting<Value> && !CountChoice<Value>) {
    const auto text = node.value_exact<std::string>();
    if (!text) throw other_type();
    refuse_zero(where, name, *text);
    try {
      read_setting(name, *text, value);
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("{}: {}", where, error.what()));
    }
  } else {
    auto read = read_node<Value>(node);
    if (!read) throw other_type();
    if constexpr (requires { holds_zero(*read); }) refuse_zero(where, name, *read);
    value = std::move(*read);
  }
}

toml::table parse_file(const std::filesystem::path& file) {
  // A plan is read here too.
  constexpr std::int64_t longest = std::int64_t{4} << 20;
  const std::string text = read_file(file, longest);
  check_toml_limits(text, file.string(), {.most_values = 100'000});
  try {
    return toml::parse(text, file.string());
  } catch (const toml::parse_error& error) {
    throw bad_input(
        fmt::format("{} line {} is not TOML: {}", file.string(), error.source().begin.line, error.description()),
        "lines like: stages = 4", "mend the line");
  }
}

}  // namespace

std::string toml_text(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    // TOML allows no control character in a text.
    if (static_cast<unsigned char>(letter) < 0x20 || letter == '\x7f')
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(letter));
    else
      result += letter;
  }
  return result + '"';
}

std::string toml_text(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

void apply_toml(TrainSettings& settings, const std::filesystem::path& file) {
  const toml::table table = parse_file(file);
  for (const auto& entry : table) {
    // Names that a lambda may use by every compiler, which those of a structured binding are not.
    const toml::key& key = entry.first;
    const toml::node& node = entry.second;
    // A plan's file says besides what it expects.
    if (key.str() == "prediction" && node.is_table()) continue;
    const std::string where = fmt::format("{} line {}", file.string(), node.source().begin.line);
    bool known = false;
    visit_settings(settings, [&](SettingGroup, const char* name, auto& value, const char*) {
      if (key.str() != name) return;
      known = true;
      read_value(where, name, node, value);
    });
    if (!known) {
      const std::string nearest = nearest_setting(key.str());
      throw bad_input(fmt::format("{}: unknown key \"{}\"", where, shortened(key.str())), "a setting of penstock train",
                      nearest.empty() ? "correct the key: docs/training.md has all of them"
                                      : fmt::format("did you mean \"{}\"? docs/training.md has all of them", nearest));
    }
  }
  const bool is_plan = table["prediction"].is_table();
  ScheduleChoice& schedule = settings.layout.schedule;
  if (is_plan && table.contains("schedule") && schedule.kind() == ScheduleChoice::File)
    schedule = schedule_file_of_plan(file, schedule.text()).string();
}

std::string to_toml(const TrainSettings& settings, TomlExtent extent) {
  std::string text;
  std::optional<SettingGroup> last;
  visit_settings(settings, [&](SettingGroup group, const std::string& name, const auto& value, const char* meaning) {
    const bool belongs_to_one_start =
        name == "out" || name == "resume" || name == "from-the-beginning" || name == "remeasure";
    if (belongs_to_one_start && extent == TomlExtent::OfTheRun) return;
    if (last != group) text += fmt::format("{}# {}\n", text.empty() ? "" : "\n", heading(group));
    last = group;
    text += fmt::format("{} = {}  # {}\n", name, toml_value(value), meaning);
  });
  return text;
}

}  // namespace penstock
