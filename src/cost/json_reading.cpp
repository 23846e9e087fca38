#include "cost/json_reading.h"

#include <algorithm>
#include <cmath>
#include <fmt/ranges.h>
#include <optional>
#include <set>

#include "penstock/base/text_limits.h"

#include "cost/fields.h"

namespace penstock {
namespace {

constexpr std::int32_t most_ranks = 1 << 20;

/// A key on one line, whatever is in it, without the quotes around it.
std::string key_name(const std::string& key) {
  const std::string text = shown(key);
  return text.substr(1, text.size() - (text.ends_with('"') ? 2 : 1));
}

RankId read_rank(const Place& place, const Json& value) {
  if (!value.is_number_integer() || value < 0 || value >= most_ranks)
    throw refuse(place, value, "a rank, counted from 0");
  return RankId{value.get<std::int32_t>()};
}

LinkCost read_link_fields(const Place& place, const Json& object) {
  LinkCost link;
  if (object.contains("latency_ms")) link.latency = read_duration(place.at("latency_ms"), object["latency_ms"]);
  if (object.contains("bandwidth_bytes_per_ms"))
    link.bytes_per_millisecond = read_number(place.at("bandwidth_bytes_per_ms"), object["bandwidth_bytes_per_ms"],
                                             "a number of bytes per millisecond, above 0", false);
  return link;
}

/// Looks for two equal keys in one object, of which nlohmann would keep the last. Its own callback would take a time
/// that grows with the square of a list's length. The names of the members are those of nlohmann's interface.
class KeyWatch {
 public:
  bool null() { return true; }
  bool boolean(bool /*value*/) { return true; }
  bool number_integer(std::int64_t /*value*/) { return true; }
  bool number_unsigned(std::uint64_t /*value*/) { return true; }
  bool number_float(double /*value*/, const std::string& /*text*/) { return true; }
  bool string(const std::string& /*value*/) { return true; }
  bool binary(const std::vector<std::uint8_t>& /*value*/) { return true; }
  bool start_array(std::size_t /*size*/) { return true; }
  bool end_array() { return true; }
  bool start_object(std::size_t /*size*/) {
    open_.emplace_back();
    return true;
  }
  bool end_object() {
    open_.pop_back();
    return true;
  }
  bool key(const std::string& name) {
    const bool first = open_.back().insert(name).second;
    if (!first) doubled_ = name;
    return first;
  }
  /// The parser that reads the text afterwards reports what is wrong.
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/, const Json::exception& /*error*/) {
    return false;
  }
  [[nodiscard]] const std::optional<std::string>& doubled() const { return doubled_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::optional<std::string> doubled_;
};

}  // namespace

std::string shown(const Json& value) {
  constexpr std::size_t longest = 40;
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= longest ? text : text.substr(0, longest) + "…";
}

Error refuse(const Place& place, const Json& value, const std::string& expected) {
  return bad_input(fmt::format("{} is {}", place.name(), shown(value)), expected, "correct the file");
}

void require_keys(const Place& place, const Json& object, std::initializer_list<std::string_view> known) {
  if (!object.is_object()) throw refuse(place, object, "an object");
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw bad_input(fmt::format("{} is not known", place.at(key_name(key)).name()),
                      fmt::format("one of {}", fmt::join(known, ", ")), "correct or remove the key");
}

const Json& require(const Place& place, const Json& object, std::string_view key) {
  const auto found = object.find(key);
  if (found == object.end())
    throw bad_input(fmt::format("{} is missing", place.at(key).name()), "it to be there", "add it to the file");
  return *found;
}

double read_number(const Place& place, const Json& value, const std::string& expected, bool zero_allowed) {
  if (!value.is_number()) throw refuse(place, value, expected);
  const double number = value.get<double>();
  if (!std::isfinite(number) || number < 0 || (number == 0 && !zero_allowed)) throw refuse(place, value, expected);
  // Between them nothing that is computed of a cost leaves the range of a double.
  if (number > largest_number || (number != 0 && number < smallest_number))
    throw refuse(place, value, fmt::format("{}, between {:g} and {:g}", expected, smallest_number, largest_number));
  return number;
}

Milliseconds read_duration(const Place& place, const Json& value) {
  const double number = read_number(place, value, "a number of milliseconds, at least 0", true);
  if (number > largest_duration.count)
    throw refuse(place, value, fmt::format("a number of milliseconds, 0 to {:g}", largest_duration.count));
  return {number};
}

bool read_flag(const Place& place, const Json& value) {
  if (!value.is_boolean()) throw refuse(place, value, "true or false");
  return value.get<bool>();
}

double read_share(const Place& place, const Json& value) {
  const std::string expected = fmt::format("a share from 0 to {}", largest_weight_activation_share);
  const double share = read_number(place, value, expected, true);
  if (!is_share(share)) throw refuse(place, value, expected);
  return share;
}

double read_contention(const Place& place, const Json& value) {
  const std::string expected = fmt::format("a number from 1 to {}", largest_contention);
  const double contention = read_number(place, value, expected, false);
  if (contention < 1 || contention > largest_contention) throw refuse(place, value, expected);
  return contention;
}

Bytes read_size(const Place& place, const Json& value, double most) {
  const std::string expected = fmt::format("a whole number of bytes, at least 0 and at most {:.0f}", most);
  const double number = read_number(place, value, expected, true);
  if (number != std::floor(number) || number > most) throw refuse(place, value, expected);
  return {static_cast<std::int64_t>(number)};
}

LinkCost read_link(const Place& place, const Json& object) {
  require_keys(place, object, {"latency_ms", "bandwidth_bytes_per_ms"});
  return read_link_fields(place, object);
}

std::map<RankPair, LinkCost> read_links(const Place& place, const Json& array) {
  if (!array.is_array()) throw refuse(place, array, "a list of links");
  std::map<RankPair, LinkCost> links;
  for (std::size_t index = 0; index < array.size(); ++index) {
    const Place here = place.at(index);
    const Json& entry = array[index];
    require_keys(here, entry, {"from", "to", "latency_ms", "bandwidth_bytes_per_ms"});
    const RankPair pair{read_rank(here.at("from"), require(here, entry, "from")),
                        read_rank(here.at("to"), require(here, entry, "to"))};
    if (!links.emplace(pair, read_link_fields(here, entry)).second)
      throw bad_input(
          fmt::format("{} is the second link from {} to {}", here.name(), pair.first.value, pair.second.value),
          "each pair of ranks at most once", "remove one of the two");
  }
  return links;
}

Json parse_json(std::string_view text, std::string_view source) {
  check_json_limits(text, source, {});
  KeyWatch keys;
  Json::sax_parse(text, &keys);
  if (keys.doubled())
    throw bad_input(fmt::format("{} has the key {} twice in one object", source, key_name(*keys.doubled())),
                    "each key at most once", "remove one of the two");
  Json document;
  try {
    document = Json::parse(text);
  } catch (const Json::parse_error& error) {
    throw bad_input(fmt::format("{} is not JSON from byte {} on", source, error.byte), "a JSON object",
                    "correct the file; include/penstock/cost/cost.h shows an example");
  } catch (const Json::out_of_range&) {
    throw bad_input(fmt::format("{} holds a number that is too large", source), "numbers below 1e308",
                    "correct the file");
  }
  return document;
}

Json to_json(const LinkCost& link) {
  Json object = {{"latency_ms", link.latency.count}};
  if (std::isfinite(link.bytes_per_millisecond)) object["bandwidth_bytes_per_ms"] = link.bytes_per_millisecond;
  return object;
}

Json to_json(const RankPair& pair, const LinkCost& link) {
  Json object = {{"from", pair.first.value}, {"to", pair.second.value}};
  object.update(to_json(link));
  return object;
}

}  // namespace penstock
