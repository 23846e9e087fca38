#include <algorithm>

#include "penstock/base/file.h"
#include "penstock/base/index.h"
#include "penstock/cost/cost.h"

#include "cost/fields.h"
#include "cost/json_reading.h"
#include "cost/layer_fields.h"

namespace penstock {
namespace {

MeasuredTime read_time(const Place& place, const Json& object, const std::string& key) {
  MeasuredTime time;
  time.median = read_duration(place.at(key + "_ms"), require(place, object, key + "_ms"));
  if (object.contains(key + "_spread_ms"))
    time.spread = read_duration(place.at(key + "_spread_ms"), object[key + "_spread_ms"]);
  return time;
}

std::int64_t read_samples(const Place& place, const Json& value) {
  constexpr std::int64_t most = std::int64_t{1} << 30;
  if (!value.is_number_integer() || value < 1 || value > most) throw refuse(place, value, "a whole number, at least 1");
  return value.get<std::int64_t>();
}

LayerAtSize read_layer_size(const Place& place, const Json& object) {
  require_keys(place, object,
               {"samples",
                "forward_ms",
                "forward_spread_ms",
                "input_backward_ms",
                "input_backward_spread_ms",
                "weight_backward_ms",
                "weight_backward_spread_ms",
                "backward_ms",
                "backward_spread_ms",
                "activation_bytes",
                "boundary_bytes",
                "forward_workspace_bytes",
                "backward_workspace_bytes",
                "kept_output_bytes",
                "inner_workspace_bytes",
                "input_workspace_bytes",
                "inner_input_workspace_bytes",
                "deferred_bytes",
                "inner_deferred_bytes",
                "weight_workspace_bytes"});
  LayerAtSize size;
  size.samples = read_samples(place.at("samples"), require(place, object, "samples"));
  for (const LayerTimeField& field : layer_time_fields) size.*field.member = read_time(place, object, field.key);
  if (!(size.forward.median.count > 0))
    throw refuse(place.at("forward_ms"), object["forward_ms"], "a time above 0, as every pass takes");
  if (object.contains("backward_ms")) size.backward = read_time(place, object, "backward");
  for (const LayerSizeField& field : layer_size_fields)
    if (object.contains(field.key)) size.*field.member = read_size(place.at(field.key), object[field.key]);
  return size;
}

std::vector<LayerAtSize> read_sizes(const Place& place, const Json& array) {
  if (!array.is_array() || array.empty()) throw refuse(place, array, "a list with an entry for each microbatch size");
  std::vector<LayerAtSize> sizes;
  for (const Json& entry : array) {
    const Place here = place.at(sizes.size());
    sizes.push_back(read_layer_size(here, entry));
    if (sizes.size() > 1 && sizes.back().samples <= sizes[sizes.size() - 2].samples)
      throw refuse(here.at("samples"), entry["samples"], "more than in the entry before it");
  }
  return sizes;
}

std::string read_name(const Place& place, const Json& value) {
  if (!value.is_string() || value.get<std::string>().empty()) throw refuse(place, value, "a text that is not empty");
  return value.get<std::string>();
}

LayerCost read_layer(const Place& place, const Json& object, const std::vector<LayerCost>& before) {
  require_keys(place, object,
               {"name", "like", "sizes", "parameter_bytes", "gradient_bytes", "optimizer_bytes", "update_ms",
                "weight_activation_share"});
  LayerCost layer;
  if (object.contains("like")) {
    require_keys(place, object, {"name", "like"});
    const std::string like = read_name(place.at("like"), object["like"]);
    const auto found =
        std::find_if(before.begin(), before.end(), [&](const LayerCost& other) { return other.name == like; });
    if (found == before.end()) throw refuse(place.at("like"), object["like"], "the name of an earlier layer");
    layer = *found;
    if (!layer.like) layer.like = as_size(found - before.begin());
  } else {
    layer.sizes = read_sizes(place.at("sizes"), require(place, object, "sizes"));
    for (const LayerFixedField& field : layer_fixed_fields)
      if (object.contains(field.key)) layer.*field.member = read_size(place.at(field.key), object[field.key]);
    if (!object.contains("gradient_bytes")) layer.gradient = layer.parameter;
    if (object.contains("update_ms")) layer.update = read_duration(place.at("update_ms"), object["update_ms"]);
    if (object.contains("weight_activation_share"))
      layer.weight_activation_share =
          read_share(place.at("weight_activation_share"), object["weight_activation_share"]);
  }
  layer.name = read_name(place.at("name"), require(place, object, "name"));
  return layer;
}

std::vector<LayerCost> read_layers(const Place& place, const Json& array) {
  if (!array.is_array() || array.empty()) throw refuse(place, array, "a list with an entry for each layer");
  std::vector<LayerCost> layers;
  for (const Json& entry : array) layers.push_back(read_layer(place.at(layers.size()), entry, layers));
  return layers;
}

std::vector<RankCost> read_ranks(const Place& place, const Json& array) {
  if (!array.is_array()) throw refuse(place, array, "a list with an entry for each rank");
  std::vector<RankCost> ranks;
  for (const Json& entry : array) {
    const Place here = place.at(ranks.size());
    require_keys(here, entry, {"speed", "memory_cap_bytes"});
    RankCost rank;
    if (entry.contains("speed")) rank.speed = read_number(here.at("speed"), entry["speed"], "a number above 0", false);
    if (entry.contains("memory_cap_bytes"))
      rank.memory_cap = read_size(here.at("memory_cap_bytes"), entry["memory_cap_bytes"], largest_cap);
    ranks.push_back(rank);
  }
  return ranks;
}

LayerParameter read_parameter(const Place& place, const Json& object, std::int64_t layers) {
  require_keys(place, object, {"layer", "parameter"});
  const Json& layer = require(place, object, "layer");
  if (!layer.is_number_integer() || layer < 0 || layer >= layers)
    throw refuse(place.at("layer"), layer, fmt::format("the number of a layer, 0 to {}", layers - 1));
  return {layer.get<std::int64_t>(), read_name(place.at("parameter"), require(place, object, "parameter"))};
}

std::vector<LayerTie> read_ties(const Place& place, const Json& array, std::int64_t layers) {
  if (!array.is_array()) throw refuse(place, array, "a list with an entry for each copy of a parameter");
  std::vector<LayerTie> ties;
  for (const Json& entry : array) {
    const Place here = place.at(ties.size());
    require_keys(here, entry, {"owner", "copy", "bytes", "frozen"});
    ties.push_back({read_parameter(here.at("owner"), require(here, entry, "owner"), layers),
                    read_parameter(here.at("copy"), require(here, entry, "copy"), layers),
                    read_size(here.at("bytes"), require(here, entry, "bytes")),
                    entry.contains("frozen") && read_flag(here.at("frozen"), entry["frozen"])});
  }
  return ties;
}

std::int64_t read_layers_without_gradient(const Place& place, const Json& value, std::int64_t layers) {
  if (!value.is_number_integer() || value < 0 || value >= layers)
    throw refuse(place, value, fmt::format("a whole number, 0 to {}", layers - 1));
  return value.get<std::int64_t>();
}

Measurement read_measurement(const Place& place, const Json& object) {
  require_keys(place, object, {"at", "rounds", "spread"});
  const Json& at = require(place, object, "at");
  const auto time = at.is_string() ? parse_wall_time(at.get<std::string>()) : std::nullopt;
  if (!time) throw refuse(place.at("at"), at, "a time in UTC, such as 2026-11-29T09:30:58Z");
  const Json& rounds = require(place, object, "rounds");
  constexpr int most_rounds = 1'000'000;
  if (!rounds.is_number_integer() || rounds < 1 || rounds > most_rounds)
    throw refuse(place.at("rounds"), rounds, "a whole number, at least 1");
  return {*time, rounds.get<int>(),
          read_number(place.at("spread"), require(place, object, "spread"), "a number of at least 0", true)};
}

Description read_description(const Place& place, const Json& object) {
  if (!object.is_object()) throw refuse(place, object, "an object of texts and numbers");
  Description description;
  for (const auto& [key, value] : object.items()) {
    if (value.is_structured() || value.is_null())
      throw refuse(place.at(shortened(key)), value, "a text, a number, true or false");
    description[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return description;
}

void add_time(Json& object, const std::string& key, const MeasuredTime& time) {
  object[key + "_ms"] = time.median.count;
  if (time.spread.count > 0) object[key + "_spread_ms"] = time.spread.count;
}

Json to_json(const LayerAtSize& size) {
  Json object = {{"samples", size.samples}};
  for (const LayerTimeField& field : layer_time_fields) add_time(object, field.key, size.*field.member);
  if (size.backward) add_time(object, "backward", *size.backward);
  for (const LayerSizeField& field : layer_size_fields)
    if ((size.*field.member).count > 0) object[field.key] = (size.*field.member).count;
  return object;
}

Json to_json(const LayerCost& layer, const std::vector<LayerCost>& layers) {
  Json object = {{"name", layer.name}};
  if (layer.like) {
    object["like"] = layers[*layer.like].name;
    return object;
  }
  for (const LayerFixedField& field : layer_fixed_fields) object[field.key] = (layer.*field.member).count;
  if (layer.update.count > 0) object["update_ms"] = layer.update.count;
  if (layer.weight_activation_share != 1) object["weight_activation_share"] = layer.weight_activation_share;
  for (const LayerAtSize& size : layer.sizes) object["sizes"].push_back(to_json(size));
  return object;
}

Json to_json(const LayerParameter& parameter) {
  return {{"layer", parameter.layer}, {"parameter", parameter.parameter}};
}

}  // namespace

LayerCosts parse_layer_costs(std::string_view json, std::string_view source) {
  const Json document = parse_json(json, source);
  const Place root{std::string(source), ""};
  if (document.is_object() && document.contains("stages") && !document.contains("layers"))
    throw bad_input(fmt::format("{} holds the costs of stages", source), "those of layers, which can be cut anew",
                    "give a file with \"layers\"; include/penstock/cost/cost.h shows an example");
  require_keys(
      root, document,
      {"model", "machine", "layers", "input_bytes_per_sample", "input_needs_gradient", "layers_without_gradient",
       "action_overhead_ms", "step_overhead_ms", "contention", "link", "links", "ranks", "ties", "measured"});
  LayerCosts costs;
  for (const auto& [key, member] : {std::pair{"model", &LayerCosts::model}, {"machine", &LayerCosts::machine}})
    if (document.contains(key)) costs.*member = read_description(root.at(key), document[key]);
  costs.layers = read_layers(root.at("layers"), require(root, document, "layers"));
  if (document.contains("input_bytes_per_sample"))
    costs.input_bytes_per_sample =
        read_size(root.at("input_bytes_per_sample"), document["input_bytes_per_sample"]).count;
  if (document.contains("input_needs_gradient"))
    costs.input_needs_gradient = read_flag(root.at("input_needs_gradient"), document["input_needs_gradient"]);
  if (document.contains("layers_without_gradient"))
    costs.layers_without_gradient = read_layers_without_gradient(
        root.at("layers_without_gradient"), document["layers_without_gradient"], std::ssize(costs.layers));
  if (document.contains("action_overhead_ms"))
    costs.action_overhead = read_duration(root.at("action_overhead_ms"), document["action_overhead_ms"]);
  if (document.contains("step_overhead_ms"))
    costs.step_overhead = read_duration(root.at("step_overhead_ms"), document["step_overhead_ms"]);
  if (document.contains("contention"))
    costs.contention = read_contention(root.at("contention"), document["contention"]);
  if (document.contains("link")) costs.default_link = read_link(root.at("link"), document["link"]);
  if (document.contains("links")) costs.links = read_links(root.at("links"), document["links"]);
  if (document.contains("ranks")) costs.ranks = read_ranks(root.at("ranks"), document["ranks"]);
  if (document.contains("ties")) costs.ties = read_ties(root.at("ties"), document["ties"], std::ssize(costs.layers));
  if (document.contains("measured")) costs.measured = read_measurement(root.at("measured"), document["measured"]);
  return costs;
}

std::string to_json(const LayerCosts& costs) {
  Json document;
  for (const auto& [key, value] : costs.model) document["model"][key] = value;
  for (const auto& [key, value] : costs.machine) document["machine"][key] = value;
  for (const LayerCost& layer : costs.layers) document["layers"].push_back(to_json(layer, costs.layers));
  if (costs.input_bytes_per_sample > 0) document["input_bytes_per_sample"] = costs.input_bytes_per_sample;
  if (!costs.input_needs_gradient) document["input_needs_gradient"] = false;
  if (costs.layers_without_gradient > 0) document["layers_without_gradient"] = costs.layers_without_gradient;
  if (costs.action_overhead.count > 0) document["action_overhead_ms"] = costs.action_overhead.count;
  if (costs.step_overhead.count > 0) document["step_overhead_ms"] = costs.step_overhead.count;
  if (costs.contention != 1) document["contention"] = costs.contention;
  document["link"] = to_json(costs.default_link);
  for (const auto& [pair, link] : costs.links) document["links"].push_back(to_json(pair, link));
  for (const RankCost& rank : costs.ranks) {
    Json object = {{"speed", rank.speed}};
    if (rank.memory_cap) object["memory_cap_bytes"] = rank.memory_cap->count;
    document["ranks"].push_back(object);
  }
  for (const LayerTie& tie : costs.ties) {
    Json object = {{"owner", to_json(tie.owner)}, {"copy", to_json(tie.copy)}, {"bytes", tie.size.count}};
    if (tie.frozen) object["frozen"] = true;
    document["ties"].push_back(std::move(object));
  }
  if (costs.measured)
    document["measured"] = {
        {"at", to_string(costs.measured->at)}, {"rounds", costs.measured->rounds}, {"spread", costs.measured->spread}};
  return document.dump(2) + "\n";
}

LayerCosts load_layer_costs(const std::filesystem::path& path) {
  return parse_layer_costs(read_file(path, longest_cost_file), path.string());
}

void save_layer_costs(const LayerCosts& costs, const std::filesystem::path& path) {
  validate(costs);
  write_file_atomically(path, to_json(costs));
}

}  // namespace penstock
