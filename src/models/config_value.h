// The values of a config.json with its name: every refusal names the file and the value.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/error.h"

namespace penstock {

class ConfigValues {
 public:
  // \param object must outlive it. \param prefix of names in messages: "rope_scaling.".
  ConfigValues(const nlohmann::json& object, std::string source, std::string prefix = "")
      : object_(&object), source_(std::move(source)), prefix_(std::move(prefix)) {}

  // Whether it is there and not null.
  [[nodiscard]] bool has(const char* name) const;
  // Whether it is there and null.
  [[nodiscard]] bool is_null(const char* name) const;
  // Whether it is there and neither null nor an empty object or list.
  [[nodiscard]] bool has_members(const char* name) const;
  // All throw Error (BadInput) for a value of another type, or that is missing and has no default.
  [[nodiscard]] std::int64_t size(const char* name) const;
  [[nodiscard]] std::int64_t size(const char* name, std::int64_t otherwise) const;
  [[nodiscard]] double number(const char* name) const;
  [[nodiscard]] double number(const char* name, double otherwise) const;
  [[nodiscard]] bool boolean(const char* name, bool otherwise) const;
  [[nodiscard]] std::string text(const char* name) const;
  [[nodiscard]] std::string text(const char* name, const std::string& otherwise) const;
  [[nodiscard]] std::vector<std::string> texts(const char* name) const;
  [[nodiscard]] std::vector<std::int64_t> sizes(const char* name) const;  // each may be 0
  [[nodiscard]] ConfigValues object(const char* name) const;

  // The error for a value that is good JSON and nothing that penstock can train.
  [[nodiscard]] Error unsupported(const std::string& name, const std::string& value, const std::string& expected) const;
  [[nodiscard]] const std::string& source() const { return source_; }

 private:
  [[nodiscard]] const nlohmann::json& at(const char* name) const;
  [[nodiscard]] Error refused(const char* name, const nlohmann::json& value, const std::string& expected) const;
  [[nodiscard]] std::int64_t whole(const char* name, const nlohmann::json& value, std::int64_t least) const;

  const nlohmann::json* object_;
  std::string source_;
  std::string prefix_;
};

}  // namespace penstock
