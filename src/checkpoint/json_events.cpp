#include "checkpoint/json_events.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/text_limits.h"

namespace penstock {
namespace {

using Visit = std::function<void(std::span<const std::string>, JsonEvent&&)>;

/// The receiving end of nlohmann's SAX parser; the names of its members are that interface's.
class EventReader {
 public:
  EventReader(std::size_t deepest, const Visit& visit) : deepest_(deepest), visit_(visit) {}

  bool null() { return refuse("a null"); }
  bool boolean(bool /*value*/) { return refuse("a boolean"); }
  bool number_integer(std::int64_t /*value*/) { return refuse("a negative number"); }
  bool number_float(double /*value*/, const std::string& /*text*/) { return refuse("a number that is no integer"); }
  bool binary(std::vector<std::uint8_t>& /*value*/) { return refuse("binary data"); }

  bool number_unsigned(std::uint64_t value) { return pass(value); }
  bool string(std::string& value) { return pass(std::move(value)); }

  bool start_object(std::size_t /*size*/) {
    if (in_array()) return refuse("an object within an array");
    return enter(false, ObjectStart{});
  }
  bool key(std::string& name) {
    keys_.back() = std::move(name);
    return true;
  }
  bool end_object() {
    open_.pop_back();
    keys_.pop_back();
    visit_(keys_, ObjectEnd{});
    return true;
  }
  bool start_array(std::size_t /*size*/) {
    if (in_array()) return refuse("an array within an array");
    return enter(true, ArrayStart{});
  }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/, const nlohmann::json::exception& /*error*/) {
    problem_ = fmt::format("no JSON at byte {}", position);
    return false;
  }

  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  [[nodiscard]] bool in_array() const { return !open_.empty() && open_.back(); }

  bool enter(bool array, JsonEvent&& event) {
    if (open_.size() >= deepest_) return refuse("too many levels");
    visit_(keys_, std::move(event));
    open_.push_back(array);
    if (!array) keys_.emplace_back();
    return true;
  }
  bool pass(JsonEvent&& event) {
    if (open_.empty()) return refuse("no object");
    visit_(keys_, std::move(event));
    return true;
  }
  bool refuse(const char* what) {
    problem_ = fmt::format("{} where an object, an array, text or a count is due", what);
    return false;
  }

  std::size_t deepest_;
  const Visit& visit_;
  std::vector<bool> open_;         // for each level, whether it is an array
  std::vector<std::string> keys_;  // one for each open object: the key that was read last
  std::string problem_;
};

constexpr std::size_t longest_quotation = 60;

}  // namespace

std::string read_json(std::string_view text, std::size_t deepest, const Visit& visit) {
  if (const auto gap = find_json_gap(text)) return fmt::format("a gap without end at byte {}", *gap);
  EventReader reader(deepest, visit);
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) return {};
  return reader.problem().empty() ? "no JSON" : reader.problem();
}

std::string in_quotes(std::string_view text) {
  const bool cut = text.size() > longest_quotation;
  const nlohmann::json value(std::string(text.substr(0, longest_quotation)));
  return value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) + (cut ? "…" : "");
}

std::string json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    throw bad_input("the text " + in_quotes(text), "UTF-8", "give it a name that is valid UTF-8");
  }
}

}  // namespace penstock
