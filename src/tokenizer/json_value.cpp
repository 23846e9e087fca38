#include "tokenizer/json_value.h"

#include <fmt/format.h>

#include "tokenizer/expression.h"

namespace penstock {
namespace {

constexpr std::size_t longest_shown = 60;

std::string shown(const nlohmann::json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  if (value.is_null()) return "null";
  return shortened(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), longest_shown);
}

}  // namespace

std::string JsonValue::place() const {
  return path_.empty() ? source_ : fmt::format("{}: {}", source_, shortened(one_line(path_)));
}

Error JsonValue::refused(const std::string& expected) const {
  return bad_input(fmt::format("{} is {}", place(), shown(*value_)), expected, "correct the tokenizer");
}

Error JsonValue::unsupported(const std::string& what, const std::string& expected) const {
  return bad_input(fmt::format("{}: {} is not supported", place(), what), expected,
                   "use a tokenizer of one of the families in docs/tokenizers.md");
}

bool JsonValue::has(std::string_view key) const {
  if (!value_->is_object()) throw refused("an object");
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

JsonValue JsonValue::at(std::string_view key) const {
  if (!value_->is_object()) throw refused("an object");
  const auto found = value_->find(key);
  if (found == value_->end())
    throw bad_input(fmt::format("{} has no \"{}\"", place(), key), "a value under that name", "correct the tokenizer");
  return {*found, source_, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key)};
}

const std::string& JsonValue::text() const {
  if (!value_->is_string()) throw refused("a text");
  return value_->get_ref<const std::string&>();
}

bool JsonValue::boolean() const {
  if (!value_->is_boolean()) throw refused("true or false");
  return value_->get<bool>();
}

double JsonValue::number() const {
  if (!value_->is_number()) throw refused("a number");
  return value_->get<double>();
}

std::uint64_t JsonValue::whole_number(std::uint64_t most) const {
  if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() > most)
    throw refused(fmt::format("a whole number of at most {}", most));
  return value_->get<std::uint64_t>();
}

void JsonValue::for_each_element(const std::function<void(const JsonValue&)>& visit) const {
  if (!value_->is_array()) throw refused("a list");
  std::size_t index = 0;
  for (const nlohmann::json& element : *value_) visit({element, source_, fmt::format("{}[{}]", path_, index++)});
}

void JsonValue::for_each_member(const std::function<void(const std::string&, const JsonValue&)>& visit) const {
  if (!value_->is_object()) throw refused("an object");
  for (const auto& [key, member] : value_->items())
    visit(key, {member, source_, fmt::format("{}.{}", path_, shortened(key, longest_shown))});
}

bool JsonValue::boolean_or(std::string_view key, bool otherwise) const {
  return has(key) ? at(key).boolean() : otherwise;
}

std::string JsonValue::text_or(std::string_view key, std::string_view otherwise) const {
  return has(key) ? at(key).text() : std::string(otherwise);
}

}  // namespace penstock
