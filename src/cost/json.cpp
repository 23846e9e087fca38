#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "cost/fields.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

constexpr double largest_size = 9007199254740992.0;  // 2^53: every JSON reader keeps whole numbers up to here
constexpr std::int32_t most_ranks = 1 << 20;

/// What is being read and where: "cost.json: stages[2].forward_ms".
struct Place {
  std::string source;
  std::string path;

  [[nodiscard]] Place at(std::string_view key) const {
    return {source, path.empty() ? std::string(key) : fmt::format("{}.{}", path, key)};
  }
  [[nodiscard]] Place at(std::size_t index) const { return {source, fmt::format("{}[{}]", path, index)}; }
  [[nodiscard]] std::string name() const { return path.empty() ? source : fmt::format("{}: {}", source, path); }
};

std::string shortened(const Json& value) {
  constexpr std::size_t longest = 40;
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= longest ? text : text.substr(0, longest) + "…";
}

/// A key on one line, whatever is in it, without the quotes around it.
std::string key_name(const std::string& key) {
  const std::string text = shortened(key);
  return text.substr(1, text.size() - (text.ends_with('"') ? 2 : 1));
}

Error refuse(const Place& place, const Json& value, const std::string& expected) {
  return bad_input(fmt::format("{} is {}", place.name(), shortened(value)), expected, "correct the file");
}

/// Refuses what is not an object, and keys that no reader will ask for: a misspelt one would otherwise be taken for 0.
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
  return number;
}

Bytes read_size(const Place& place, const Json& value) {
  const std::string expected = "a whole number of bytes, at least 0";
  const double number = read_number(place, value, expected, true);
  if (number != std::floor(number) || number > largest_size) throw refuse(place, value, expected);
  return {static_cast<std::int64_t>(number)};
}

RankId read_rank(const Place& place, const Json& value) {
  if (!value.is_number_integer() || value < 0 || value >= most_ranks)
    throw refuse(place, value, "a rank, counted from 0");
  return RankId{value.get<std::int32_t>()};
}

StageCost read_stage(const Place& place, const Json& object) {
  require_keys(place, object,
               {"forward_ms", "input_backward_ms", "weight_backward_ms", "activation_bytes", "boundary_bytes",
                "parameter_bytes", "gradient_bytes", "optimizer_bytes", "weight_activation_share"});
  StageCost stage;
  if (object.contains("weight_activation_share")) {
    const Json& value = object["weight_activation_share"];
    const std::string expected = fmt::format("a share from 0 to {}", largest_weight_activation_share);
    stage.weight_activation_share = read_number(place.at("weight_activation_share"), value, expected, true);
    if (!is_share(stage.weight_activation_share)) throw refuse(place.at("weight_activation_share"), value, expected);
  }
  for (const DurationField& field : duration_fields)
    (stage.*field.member).count = read_number(place.at(field.key), require(place, object, field.key),
                                              "a number of milliseconds, at least 0", true);
  for (const SizeField& field : size_fields)
    if (object.contains(field.key)) stage.*field.member = read_size(place.at(field.key), object[field.key]);
  if (!object.contains("gradient_bytes")) stage.gradient = stage.parameter;
  return stage;
}

LinkCost read_link(const Place& place, const Json& object) {
  LinkCost link;
  if (object.contains("latency_ms"))
    link.latency.count =
        read_number(place.at("latency_ms"), object["latency_ms"], "a number of milliseconds, at least 0", true);
  if (object.contains("bandwidth_bytes_per_ms"))
    link.bytes_per_millisecond = read_number(place.at("bandwidth_bytes_per_ms"), object["bandwidth_bytes_per_ms"],
                                             "a number of bytes per millisecond, above 0", false);
  return link;
}

std::vector<StageCost> read_stages(const Place& place, const Json& array) {
  if (!array.is_array() || array.empty()) throw refuse(place, array, "a list with an entry for each stage");
  std::vector<StageCost> stages;
  for (const Json& entry : array) stages.push_back(read_stage(place.at(stages.size()), entry));
  return stages;
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
    if (!links.emplace(pair, read_link(here, entry)).second)
      throw bad_input(
          fmt::format("{} is the second link from {} to {}", here.name(), pair.first.value, pair.second.value),
          "each pair of ranks at most once", "remove one of the two");
  }
  return links;
}

std::vector<Bytes> read_caps(const Place& place, const Json& array) {
  if (!array.is_array()) throw refuse(place, array, "a list with a number of bytes for each rank");
  std::vector<Bytes> caps;
  for (const Json& entry : array) caps.push_back(read_size(place.at(caps.size()), entry));
  return caps;
}

/// What nlohmann accepts and a cost must not hold: two equal keys, of which it would keep the last, and nesting so deep
/// that printing it would overflow the stack.
class Oddities {
 public:
  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    constexpr int deepest = 16;
    too_deep_ = too_deep_ || depth > deepest;
    if (too_deep_) return false;
    if (event == Json::parse_event_t::object_start) open_.emplace_back();
    if (event == Json::parse_event_t::object_end) open_.pop_back();
    if (event == Json::parse_event_t::key && !open_.back().insert(parsed.get<std::string>()).second && !doubled_)
      doubled_ = parsed.get<std::string>();
    return true;
  }
  [[nodiscard]] bool too_deep() const { return too_deep_; }
  [[nodiscard]] const std::optional<std::string>& doubled() const { return doubled_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::optional<std::string> doubled_;
  bool too_deep_ = false;
};

Json parse_json(std::string_view text, std::string_view source) {
  Oddities oddities;
  Json document;
  try {
    document = Json::parse(text, std::ref(oddities));
  } catch (const Json::parse_error& error) {
    throw bad_input(fmt::format("{} is not JSON from byte {} on", source, error.byte), "a JSON object",
                    "correct the file; include/penstock/cost/cost.h shows an example");
  } catch (const Json::out_of_range&) {
    throw bad_input(fmt::format("{} holds a number that is too large", source), "numbers below 1e308",
                    "correct the file");
  }
  if (oddities.too_deep())
    throw bad_input(fmt::format("{} is nested too deeply", source), "lists of stages and links", "correct the file");
  if (oddities.doubled())
    throw bad_input(fmt::format("{} has the key {} twice in one object", source, key_name(*oddities.doubled())),
                    "each key at most once", "remove one of the two");
  return document;
}

Json link_to_json(const LinkCost& link) {
  Json object = {{"latency_ms", link.latency.count}};
  if (std::isfinite(link.bytes_per_millisecond)) object["bandwidth_bytes_per_ms"] = link.bytes_per_millisecond;
  return object;
}

Json stage_to_json(const StageCost& stage) {
  Json object;
  for (const DurationField& field : duration_fields) object[field.key] = (stage.*field.member).count;
  for (const SizeField& field : size_fields) object[field.key] = (stage.*field.member).count;
  if (stage.weight_activation_share != 1) object["weight_activation_share"] = stage.weight_activation_share;
  return object;
}

}  // namespace

Cost parse_cost(std::string_view json, std::string_view source) {
  const Json document = parse_json(json, source);
  const Place root{std::string(source), ""};
  require_keys(root, document, {"stages", "link", "links", "memory_cap_bytes"});
  Cost cost;
  cost.stages = read_stages(root.at("stages"), require(root, document, "stages"));
  if (document.contains("link")) {
    require_keys(root.at("link"), document["link"], {"latency_ms", "bandwidth_bytes_per_ms"});
    cost.default_link = read_link(root.at("link"), document["link"]);
  }
  if (document.contains("links")) cost.links = read_links(root.at("links"), document["links"]);
  if (document.contains("memory_cap_bytes"))
    cost.memory_caps = read_caps(root.at("memory_cap_bytes"), document["memory_cap_bytes"]);
  return cost;
}

std::string to_json(const Cost& cost) {
  Json document;
  document["stages"] = Json::array();
  for (const StageCost& stage : cost.stages) document["stages"].push_back(stage_to_json(stage));
  document["link"] = link_to_json(cost.default_link);
  for (const auto& [pair, link] : cost.links) {
    Json object = {{"from", pair.first.value}, {"to", pair.second.value}};
    object.update(link_to_json(link));
    document["links"].push_back(object);
  }
  for (const Bytes cap : cost.memory_caps) document["memory_cap_bytes"].push_back(cap.count);
  return document.dump(2) + "\n";
}

Cost load_cost(const std::filesystem::path& path) { return parse_cost(read_file(path), path.string()); }

void save_cost(const Cost& cost, const std::filesystem::path& path) {
  validate(cost);
  write_file_atomically(path, to_json(cost));
}

}  // namespace penstock
