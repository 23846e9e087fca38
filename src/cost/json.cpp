#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "cost/fields.h"
#include "cost/json_reading.h"

namespace penstock {
namespace {

StageCost read_stage(const Place& place, const Json& object) {
  require_keys(place, object,
               {"forward_ms", "input_backward_ms", "weight_backward_ms", "activation_bytes", "boundary_bytes",
                "parameter_bytes", "gradient_bytes", "optimizer_bytes", "forward_workspace_bytes",
                "backward_workspace_bytes", "input_workspace_bytes", "weight_workspace_bytes", "gradient_at_peak_bytes",
                "kept_gradient_bytes", "weight_activation_share", "update_ms", "gradient_returns"});
  StageCost stage;
  if (object.contains("gradient_returns"))
    stage.gradient_returns = read_flag(place.at("gradient_returns"), object["gradient_returns"]);
  if (object.contains("weight_activation_share"))
    stage.weight_activation_share = read_share(place.at("weight_activation_share"), object["weight_activation_share"]);
  for (const DurationField& field : duration_fields)
    if (!field.optional || object.contains(field.key))
      stage.*field.member = read_duration(place.at(field.key), require(place, object, field.key));
  for (const SizeField& field : size_fields)
    if (object.contains(field.key)) stage.*field.member = read_size(place.at(field.key), object[field.key]);
  if (!object.contains("gradient_bytes")) stage.gradient = stage.parameter;
  return stage;
}

std::vector<StageCost> read_stages(const Place& place, const Json& array) {
  if (!array.is_array() || array.empty()) throw refuse(place, array, "a list with an entry for each stage");
  std::vector<StageCost> stages;
  for (const Json& entry : array) stages.push_back(read_stage(place.at(stages.size()), entry));
  return stages;
}

std::vector<Bytes> read_caps(const Place& place, const Json& array) {
  if (!array.is_array()) throw refuse(place, array, "a list with a number of bytes for each rank");
  std::vector<Bytes> caps;
  for (const Json& entry : array) caps.push_back(read_size(place.at(caps.size()), entry, largest_cap));
  return caps;
}

Json stage_to_json(const StageCost& stage) {
  Json object;
  for (const DurationField& field : duration_fields)
    if (!field.optional || (stage.*field.member).count > 0) object[field.key] = (stage.*field.member).count;
  for (const SizeField& field : size_fields)
    if (!field.written_only_if_above_0 || (stage.*field.member).count > 0)
      object[field.key] = (stage.*field.member).count;
  if (stage.weight_activation_share != 1) object["weight_activation_share"] = stage.weight_activation_share;
  if (!stage.gradient_returns) object["gradient_returns"] = false;
  return object;
}

}  // namespace

Cost parse_cost(std::string_view json, std::string_view source) {
  const Json document = parse_json(json, source);
  const Place root{std::string(source), ""};
  require_keys(root, document, {"stages", "link", "links", "memory_cap_bytes", "contention"});
  Cost cost;
  cost.stages = read_stages(root.at("stages"), require(root, document, "stages"));
  if (document.contains("link")) cost.default_link = read_link(root.at("link"), document["link"]);
  if (document.contains("links")) cost.links = read_links(root.at("links"), document["links"]);
  if (document.contains("memory_cap_bytes"))
    cost.memory_caps = read_caps(root.at("memory_cap_bytes"), document["memory_cap_bytes"]);
  if (document.contains("contention")) cost.contention = read_contention(root.at("contention"), document["contention"]);
  return cost;
}

std::string to_json(const Cost& cost) {
  Json document;
  document["stages"] = Json::array();
  for (const StageCost& stage : cost.stages) document["stages"].push_back(stage_to_json(stage));
  document["link"] = to_json(cost.default_link);
  for (const auto& [pair, link] : cost.links) document["links"].push_back(to_json(pair, link));
  for (const Bytes cap : cost.memory_caps) document["memory_cap_bytes"].push_back(cap.count);
  if (cost.contention != 1) document["contention"] = cost.contention;
  return document.dump(2) + "\n";
}

Cost load_cost(const std::filesystem::path& path) {
  return parse_cost(read_file(path, longest_cost_file), path.string());
}

void save_cost(const Cost& cost, const std::filesystem::path& path) {
  validate(cost);
  write_file_atomically(path, to_json(cost));
}

}  // namespace penstock
