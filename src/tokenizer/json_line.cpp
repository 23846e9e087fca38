#include "tokenizer/json_line.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/text_limits.h"

#include "tokenizer/expression.h"
#include "tokenizer/unicode.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

constexpr int deepest_line = 64;

// Keeps nothing but the field.
class LineReading : public nlohmann::json_sax<Json> {
 public:
  LineReading(std::string_view field, const std::string& place) : field_(field), place_(place) {}

  bool null() override { return other("null"); }
  bool boolean(bool read) override { return other(read ? "true" : "false"); }
  bool number_integer(number_integer_t /*read*/) override { return other("a number"); }
  bool number_unsigned(number_unsigned_t /*read*/) override { return other("a number"); }
  bool number_float(number_float_t /*read*/, const string_t& /*text*/) override { return other("a number"); }
  bool binary(binary_t& /*read*/) override { return true; }  // JSON has none
  bool string(string_t& read) override {
    if (depth_ == 0) return other("a text");
    if (is_field_) found_ = std::move(read);
    return true;
  }
  bool start_object(std::size_t /*size*/) override {
    if (depth_ > 0) other("an object");
    return open();
  }
  bool start_array(std::size_t /*size*/) override {
    other("a list");
    return open();
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& read) override {
    is_field_ = depth_ == 1 && read == field_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*why*/) override {
    throw bad_input(fmt::format("{} is no JSON from its byte {} on", place_, position), "an object on each line",
                    "correct the line");
  }

  std::string take() {
    if (!found_)
      throw bad_input(fmt::format("{} has no \"{}\"", place_, shortened(one_line(field_))),
                      "the document under that name", "name another one with `field`, or correct the line");
    return std::move(*found_);
  }

 private:
  bool other(const char* what) {
    if (depth_ == 0)
      throw bad_input(fmt::format("{} is {}", place_, what), "an object on each line", "correct the line");
    if (is_field_)
      throw bad_input(fmt::format("{}: \"{}\" is {}", place_, shortened(one_line(field_)), what), "a text",
                      "name another one with `field`, or correct the line");
    return true;
  }
  bool open() {
    if (++depth_ > deepest_line)
      throw bad_input(place_ + " has more values within values than are read",
                      fmt::format("at most {} levels", deepest_line), "correct the line");
    is_field_ = false;
    return true;
  }
  bool close() {
    --depth_;
    is_field_ = false;
    return true;
  }

  std::string_view field_;
  const std::string& place_;
  std::optional<std::string> found_;
  int depth_ = 0;
  bool is_field_ = false;
};

}  // namespace

std::string text_of_json_line(std::string_view line, std::string_view field, const std::string& place) {
  check_json_gaps(line, place);
  LineReading reading(field, place);
  if (is_valid_utf8(line))
    Json::sax_parse(line, &reading);
  else
    Json::sax_parse(valid_utf8(line), &reading);
  return reading.take();
}

}  // namespace penstock
