/// \file
/// Values of a tokenizer.json with their place in it: every refusal names the file and the path of the value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "penstock/base/error.h"

namespace penstock {

/// A value and where it stands: "tokenizer.json: model.vocab". It refers to the document, which has to outlive it.
class JsonValue {
 public:
  JsonValue(const nlohmann::json& value, std::string source, std::string path = "")
      : value_(&value), source_(std::move(source)), path_(std::move(path)) {}

  /// Whether there is a member of this name that is not null. \throws Error (BadInput) where this is no object.
  [[nodiscard]] bool has(std::string_view key) const;
  /// A member. \throws Error (BadInput) where there is none.
  [[nodiscard]] JsonValue at(std::string_view key) const;
  [[nodiscard]] bool is_null() const { return value_->is_null(); }
  [[nodiscard]] bool is_text() const { return value_->is_string(); }
  /// \throws Error (BadInput) where the value is another one, each of these.
  [[nodiscard]] const std::string& text() const;
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] double number() const;
  [[nodiscard]] std::uint64_t whole_number(std::uint64_t most) const;
  void for_each_element(const std::function<void(const JsonValue&)>& visit) const;
  void for_each_member(const std::function<void(const std::string&, const JsonValue&)>& visit) const;

  /// A member, or what stands for it where there is none.
  [[nodiscard]] bool boolean_or(std::string_view key, bool otherwise) const;
  [[nodiscard]] std::string text_or(std::string_view key, std::string_view otherwise) const;

  /// The word under "type". \throws Error (BadInput) where there is none.
  [[nodiscard]] const std::string& type() const { return at("type").text(); }

  [[nodiscard]] const std::string& source() const { return source_; }
  /// As messages name it.
  [[nodiscard]] std::string place() const;
  /// The error for a value that is not what it should be.
  [[nodiscard]] Error refused(const std::string& expected) const;
  /// The error for what a tokenizer may have and this program does not support. \param what "the pre-tokenizer
  /// \"BertPreTokenizer\"".
  [[nodiscard]] Error unsupported(const std::string& what, const std::string& expected) const;

 private:
  const nlohmann::json* value_;
  std::string source_;
  std::string path_;
};

}  // namespace penstock
