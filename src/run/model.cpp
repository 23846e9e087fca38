#include "run/model.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include <c10/core/Device.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "penstock/base/error.h"
#include "penstock/base/text_limits.h"
#include "penstock/exec/device.h"
#include "penstock/exec/footprint.h"
#include "penstock/nn/networks.h"
#include "penstock/settings/checks.h"

namespace penstock {
namespace {

constexpr int notes_version = 1;

bool is_image(const DataDescription& data) { return data.kind == DataKind::Images; }

void check_kind(const TrainSettings::Model& model, const DataDescription& data, bool wants_images) {
  if (is_image(data) != wants_images)
    throw bad_input(fmt::format("`model` = {} with {} data", to_text(model.kind), is_image(data) ? "image" : "token"),
                    wants_images ? "IDX images and labels" : "text or token files",
                    wants_images ? "use the `model` gpt, or name IDX files" : "use the `model` mlp or convnet");
}

// How many devices of a kind there are here: 0 if this libtorch cannot drive them, or finds none.
int devices_there(at::DeviceType type) {
  if (type == at::kMeta || !c10::impl::hasDeviceGuardImpl(type)) return 0;
  try {
    return c10::impl::VirtualGuardImpl(type).deviceCount();
  } catch (const std::exception&) {
    return 0;  // a driver that is missing or too old
  }
}

at::Device parse_device(const std::string& name) {
  std::optional<at::Device> device;
  try {
    device.emplace(name);
  } catch (const std::exception&) {  // no name of a device, or a number beyond all
    throw bad_input(fmt::format("device \"{}\"", shortened(name)), "cpu, or cuda:0 and so on", "change `devices`");
  }
  if (device->is_cpu()) return *device;
  const int there = devices_there(device->type());
  if (there == 0)
    throw bad_input(
        fmt::format("device \"{}\", which this libtorch cannot drive or find here", shortened(name)), "cpu",
        "change `devices`; where there is such a device, build with a libtorch for it and see what penstock "
        "doctor says");
  if (device->has_index() && device->index() >= there)
    throw bad_input(fmt::format("device \"{}\" of {}", shortened(name), counted(there, "device")),
                    fmt::format("a number from 0 to {}", there - 1), "change `devices`");
  return *device;
}

// The settings that make one network another. Everything else may change from start to start.
nlohmann::json network_settings(const TrainSettings& settings) {
  return {{"model", word_of(settings.model.kind.kind())},
          {"layers", settings.model.layers},
          {"width", settings.model.width},
          {"heads", settings.model.heads},
          {"context", settings.data.context},
          {"tied-head", settings.model.tied_head},
          {"optimizer", word_of(settings.training.optimizer)}};
}

nlohmann::json description_json(const DataDescription& data) {
  return {{"kind", static_cast<int>(data.kind)},
          {"vocabulary", data.vocabulary},
          {"channels", data.channels},
          {"rows", data.rows},
          {"columns", data.columns},
          {"classes", data.classes}};
}

}  // namespace

Network make_network(const TrainSettings& settings, const DataDescription& data) {
  const TrainSettings::Model& model = settings.model;
  if (model.kind == ModelKind::Gpt) {
    check_kind(model, data, false);
    GptSettings gpt;
    gpt.vocabulary = data.vocabulary;
    gpt.layers = model.layers;
    gpt.width = model.width;
    gpt.heads = model.heads;
    gpt.context = settings.data.context;
    gpt.dropout = model.dropout;
    gpt.tied_head = model.tied_head;
    return make_gpt(gpt);
  }
  check_invariant(model.kind != ModelKind::Published, "a published model is made of its configuration");
  if (model.kind == ModelKind::Own)
    throw bad_input("a run whose network is a program's own", "one of gpt, mlp or convnet",
                    "use the program that trained it: evaluate_run and trained_pipeline take its network");
  check_kind(model, data, true);
  if (model.kind == ModelKind::Mlp)
    return make_mlp({data.channels * data.rows * data.columns, model.layers, model.width, data.classes, model.dropout});
  ConvnetSettings convnet;
  convnet.channels = data.channels;
  convnet.rows = data.rows;
  convnet.columns = data.columns;
  convnet.layers = model.layers;
  convnet.width = model.width;
  // Eight channels a group, or one group where the width does not divide.
  convnet.groups = model.width % 8 == 0 ? model.width / 8 : 1;
  convnet.classes = data.classes;
  convnet.dropout = model.dropout;
  return make_convnet(convnet);
}

namespace {

Cut cut_of(const Layout& layout, const Network& network) {
  if (layout.cut.kind() == CutChoice::ByParameters) return balanced_cut(parameter_counts(network), layout.stages);
  return cut_of(layout.cut, std::ssize(network.layers), layout.stages);
}

OptimizerSettings optimizer_of(const TrainSettings::Training& training) {
  return {training.optimizer, training.weight_decay, training.momentum,
          training.beta1,     training.beta2,        training.epsilon};
}

}  // namespace

PipelineSettings make_pipeline_settings(const TrainSettings& settings, const Network& network,
                                        const std::function<Tensors()>& first_inputs) {
  const Layout& layout = settings.layout;
  PipelineSettings pipeline;
  pipeline.cut = cut_of(layout, network);
  for (const std::string& device : layout.devices) pipeline.devices.push_back(parse_device(device));
  if (std::ranges::any_of(pipeline.devices, [](at::Device device) { return !device.is_cpu(); }))
    choose_repeatable_algorithms();
  pipeline.threads_per_rank = layout.threads_per_rank;
  pipeline.seed = settings.training.seed;
  pipeline.optimizer = optimizer_of(settings.training);
  pipeline.clip_norm = settings.training.clip;
  pipeline.offload = layout.offload;
  pipeline.precision = settings.training.precision;
  pipeline.weights = settings.training.weights;
  pipeline.boundary_dtype = layout.boundary_dtype;
  pipeline.recompute = layout.recompute.kind() == Recompute::Selected
                           ? select_recomputed(layer_footprints(network, first_inputs(), pipeline.precision))
                           : recomputed_layers(layout.recompute, std::ssize(network.layers));
  pipeline.post_validation = settings.training.post_validation;
  pipeline.steps_in_flight = settings.training.steps_in_flight;
  pipeline.check_finite = settings.output.check_finite;
  pipeline.memory_limit = layout.memory_limit.value_or(Bytes{});
  pipeline.replicas = layout.replicas;
  pipeline.gradient_tree = layout.gradient_tree;
  pipeline.shard_optimizer = layout.zero == 1;
  pipeline.gradient_bucket = layout.gradient_bucket;
  return pipeline;
}

PipelineSettings make_pipeline_settings(const TrainSettings& settings, const Job& job) {
  PipelineSettings pipeline = make_pipeline_settings(settings, job.network, [&] {
    const int microbatches = settings.layout.microbatches.count();
    return first_inputs(*job.train, (settings.training.batch + microbatches - 1) / microbatches);
  });
  pipeline.optimizer.rules = job.rules;
  return pipeline;
}

std::string to_json(const CheckpointNotes& notes) {
  nlohmann::json json{{"penstock", notes_version},
                      {"updates", notes.updates},
                      {"network", network_settings(notes.settings)},
                      {"data", description_json(notes.data)}};
  if (!notes.shape.empty()) json["shape"] = notes.shape;
  return json.dump();
}

namespace {

// A whole number of a checkpoint's notes; nlohmann would make one of any number.
template <class Number>
void take(const std::string& source, const nlohmann::json& object, const char* name, std::int64_t least,
          std::int64_t most, Number& number) {
  const nlohmann::json& value = object.at(name);
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most)
                                               : value.is_number_integer() && value.get<std::int64_t>() <= most;
  if (!fits || value.get<std::int64_t>() < least)
    throw bad_input(fmt::format("{}: {} is {}", source, name, shortened(value.dump())),
                    fmt::format("a whole number, {} to {}", least, most), "use a checkpoint that is not damaged");
  number = static_cast<Number>(value.get<std::int64_t>());
}

// What it throws, `parse_notes` tells in its own words.
template <HasWords Kind>
Kind kind_in(const nlohmann::json& object, const char* name) {
  const auto kind = kind_named<Kind>(object.at(name).get<std::string>());
  if (!kind) throw std::invalid_argument("another word");
  return *kind;
}

}  // namespace

CheckpointNotes parse_notes(const std::string& text, const std::filesystem::path& checkpoint) {
  const std::string source = checkpoint.string() + ": its notes";
  constexpr std::int64_t most = 1'000'000'000;
  constexpr std::int64_t most_updates = 1'000'000'000'000'000;
  check_json_limits(text, source, {.deepest = 8, .most_values = 1000});
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    CheckpointNotes notes;
    if (json.at("penstock") != notes_version) throw std::invalid_argument("another version");
    take(source, json, "updates", 0, most_updates, notes.updates);
    const nlohmann::json& network = json.at("network");
    // Which folder it came from belongs to the run, not to the checkpoint.
    const auto network_kind = kind_in<ModelKind>(network, "model");
    notes.settings.model.kind = network_kind == ModelKind::Published ? ModelChoice("./") : ModelChoice(network_kind);
    if (json.contains("shape")) json.at("shape").get_to(notes.shape);
    take(source, network, "layers", 1, most, notes.settings.model.layers);
    take(source, network, "width", 1, most, notes.settings.model.width);
    take(source, network, "heads", 1, most, notes.settings.model.heads);
    take(source, network, "context", 1, most, notes.settings.data.context);
    network.at("tied-head").get_to(notes.settings.model.tied_head);
    notes.settings.training.optimizer = kind_in<OptimizerKind>(network, "optimizer");
    const nlohmann::json& data = json.at("data");
    int kind = 0;
    take(source, data, "kind", 0, static_cast<int>(DataKind::Own), kind);
    notes.data.kind = static_cast<DataKind>(kind);
    take(source, data, "vocabulary", 0, most, notes.data.vocabulary);
    take(source, data, "channels", 0, most, notes.data.channels);
    take(source, data, "rows", 0, most, notes.data.rows);
    take(source, data, "columns", 0, most, notes.data.columns);
    take(source, data, "classes", 0, most, notes.data.classes);
    return notes;
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw bad_input(source + " are not those of a penstock run", fmt::format("notes of version {}", notes_version),
                    "use a checkpoint that penstock train has written");
  }
}

void check_same_network(const CheckpointNotes& saved, const TrainSettings& settings, const DataDescription& data) {
  const nlohmann::json was = network_settings(saved.settings);
  const nlohmann::json is = network_settings(settings);
  for (const auto& [name, value] : was.items()) {
    if (is.at(name) != value)
      throw bad_input(fmt::format("{} is {}, the checkpoint's is {}", field(name), is.at(name).dump(), value.dump()),
                      "the network of the checkpoint", fmt::format("drop {} or choose another `out`", field(name)));
  }
  const nlohmann::json then = description_json(saved.data);
  const nlohmann::json now = description_json(data);
  for (const auto& [name, value] : then.items()) {
    if (now.at(name) != value)
      throw bad_input(
          fmt::format("the data's {} is {}, the checkpoint's is {}", name, now.at(name).dump(), value.dump()),
          "data of the same form", "resume with the run's own data or choose another `out`");
  }
}

}  // namespace penstock
