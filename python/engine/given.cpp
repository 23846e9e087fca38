#include "engine/given.h"

#include <pybind11/stl.h>

#include "engine/optimizer.h"

namespace penstock::python {
namespace {

std::vector<Argument> arguments_of(const Arguments& given) {
  std::vector<Argument> arguments;
  for (const auto& [tensor, dimension] : given) arguments.push_back({tensor.value_or(at::Tensor()), dimension});
  return arguments;
}

template <class Kind>
void take_word(const py::dict& given, const char* name, Kind& kind) {
  if (given.contains(name)) kind = Worded<Kind>(given[name].cast<std::string>());
}

template <class Value>
void take(const py::dict& given, const char* name, Value& value) {
  if (given.contains(name)) value = given[name].cast<Value>();
}

}  // namespace

Minibatch minibatch_of(const Arguments& inputs, const Arguments& targets) {
  return {arguments_of(inputs), arguments_of(targets)};
}

OptimizerSettings optimizer_settings_of(const py::dict& given) {
  OptimizerSettings settings;
  if (given.contains("optimizer")) settings.kind = given["optimizer"].cast<std::string>();
  take(given, "weight_decay", settings.weight_decay);
  take(given, "momentum", settings.momentum);
  take(given, "beta1", settings.beta1);
  take(given, "beta2", settings.beta2);
  take(given, "epsilon", settings.epsilon);
  return settings;
}

PipelineSettings settings_of(const py::dict& given, const std::shared_ptr<Crossing>& crossing) {
  PipelineSettings settings;
  settings.optimizer = optimizer_settings_of(given);
  if (given.contains("make_optimizer"))
    settings.outside_optimizer = optimizer_from(crossing->hold(given["make_optimizer"]), crossing);
  take(given, "cut", settings.cut);
  take(given, "threads_per_rank", settings.threads_per_rank);
  take(given, "seed", settings.seed);
  take(given, "clip", settings.clip_norm);
  take(given, "recompute", settings.recompute);
  take(given, "offload", settings.offload);
  take_word(given, "precision", settings.precision);
  take_word(given, "boundary_dtype", settings.boundary_dtype);
  take(given, "post_validation", settings.post_validation);
  take(given, "replicas", settings.replicas);
  take(given, "gradient_tree", settings.gradient_tree);
  take(given, "shard_optimizer", settings.shard_optimizer);
  take(given, "check_finite", settings.check_finite);
  if (given.contains("memory_limit")) settings.memory_limit = {given["memory_limit"].cast<std::int64_t>()};
  settings.devices = devices_of(given);
  return settings;
}

std::vector<at::Device> devices_of(const py::dict& given) {
  std::vector<at::Device> devices;
  if (!given.contains("devices")) return devices;
  for (const py::handle device : given["devices"].cast<py::list>()) devices.push_back(device.cast<at::Device>());
  return devices;
}

std::optional<SharedPipeline> shared_pipeline_of(const py::dict& given) {
  if (!given.contains("pipeline_number")) return std::nullopt;
  const std::optional<ProcessSettings> part = part_of_environment(given["pipeline_number"].cast<int>());
  if (!part) return std::nullopt;
  return SharedPipeline{*part, given["description"].cast<std::string>()};
}

Described described(const std::vector<LayerTuple>& layers, const py::object& loss, const std::vector<TieTuple>& ties,
                    const std::vector<SkipTuple>& skips, bool keeps_modules) {
  Described made;
  if (keeps_modules) made.built = std::make_shared<BuiltModules>(layers.size());
  std::vector<LayerSource> sources;
  sources.reserve(layers.size());
  for (const auto& [name, layer, is_factory] : layers)
    sources.push_back({name, made.crossing->hold(layer), is_factory});
  std::vector<Tie> tied;
  tied.reserve(ties.size());
  for (const auto& [owner, owned, copy, copied] : ties) tied.push_back({{owner, owned}, {copy, copied}});
  std::vector<Skip> skipped;
  skipped.reserve(skips.size());
  for (const auto& [from, to, output] : skips) skipped.push_back({from, to, output});
  made.network = network_of(sources, loss, tied, skipped, made.built, made.crossing);
  return made;
}

}  // namespace penstock::python
