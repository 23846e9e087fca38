#include "models/config_value.h"

#include <fmt/format.h>

namespace penstock {
namespace {

constexpr std::int64_t largest = 1'000'000'000;

}  // namespace

bool ConfigValues::has(const char* name) const {
  const auto found = object_->find(name);
  return found != object_->end() && !found->is_null();
}

bool ConfigValues::is_null(const char* name) const {
  const auto found = object_->find(name);
  return found != object_->end() && found->is_null();
}

bool ConfigValues::has_members(const char* name) const {
  const auto found = object_->find(name);
  return found != object_->end() && !found->empty();
}

const nlohmann::json& ConfigValues::at(const char* name) const {
  const auto found = object_->find(name);
  if (found == object_->end())
    throw bad_input(fmt::format("{} has no {}{}", source_, prefix_, name), "a value under that name",
                    "use the config.json that was published with the weights");
  return *found;
}

Error ConfigValues::refused(const char* name, const nlohmann::json& value, const std::string& expected) const {
  const std::string shown = shortened(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), 60);
  return bad_input(fmt::format("{}: {}{} is {}", source_, prefix_, name, shown), expected,
                   "use the config.json that was published with the weights");
}

Error ConfigValues::unsupported(const std::string& name, const std::string& value, const std::string& expected) const {
  const std::string shown =
      nlohmann::json(shortened(value, 60)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return bad_input(fmt::format("{}: {}{} is {}, which is not supported", source_, prefix_, name, shown), expected,
                   "use another model (docs/models.md lists what is supported)");
}

std::int64_t ConfigValues::whole(const char* name, const nlohmann::json& value, std::int64_t least) const {
  const bool fits = value.is_number_unsigned() && value.get<std::uint64_t>() <= static_cast<std::uint64_t>(largest);
  if (!fits || value.get<std::int64_t>() < least)
    throw refused(name, value, fmt::format("a whole number, {} to {}", least, largest));
  return value.get<std::int64_t>();
}

std::int64_t ConfigValues::size(const char* name) const { return whole(name, at(name), 1); }

std::int64_t ConfigValues::size(const char* name, std::int64_t otherwise) const {
  return has(name) ? size(name) : otherwise;
}

double ConfigValues::number(const char* name) const {
  const nlohmann::json& value = at(name);
  if (!value.is_number()) throw refused(name, value, "a number");
  return value.get<double>();
}

double ConfigValues::number(const char* name, double otherwise) const { return has(name) ? number(name) : otherwise; }

bool ConfigValues::boolean(const char* name, bool otherwise) const {
  if (!has(name)) return otherwise;
  const nlohmann::json& value = at(name);
  if (!value.is_boolean()) throw refused(name, value, "true or false");
  return value.get<bool>();
}

std::string ConfigValues::text(const char* name) const {
  const nlohmann::json& value = at(name);
  if (!value.is_string()) throw refused(name, value, "a text");
  return value.get<std::string>();
}

std::string ConfigValues::text(const char* name, const std::string& otherwise) const {
  return has(name) ? text(name) : otherwise;
}

std::vector<std::string> ConfigValues::texts(const char* name) const {
  std::vector<std::string> texts;
  if (!has(name)) return texts;
  const nlohmann::json& value = at(name);
  if (!value.is_array()) throw refused(name, value, "a list of texts");
  for (const nlohmann::json& element : value) {
    if (!element.is_string()) throw refused(name, element, "a text");
    texts.push_back(element.get<std::string>());
  }
  return texts;
}

std::vector<std::int64_t> ConfigValues::sizes(const char* name) const {
  std::vector<std::int64_t> sizes;
  if (!has(name)) return sizes;
  const nlohmann::json& value = at(name);
  if (!value.is_array()) throw refused(name, value, "a list of whole numbers");
  for (const nlohmann::json& element : value) sizes.push_back(whole(name, element, 0));
  return sizes;
}

ConfigValues ConfigValues::object(const char* name) const {
  const nlohmann::json& value = at(name);
  if (!value.is_object()) throw refused(name, value, "an object");
  return {value, source_, fmt::format("{}{}.", prefix_, name)};
}

}  // namespace penstock
