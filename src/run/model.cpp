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
#include "penstock/base/file.h"
#include "penstock/base/parse_bytes.h"
#include "penstock/base/text_limits.h"
#include "penstock/exec/device.h"
#include "penstock/exec/footprint.h"
#include "penstock/nn/networks.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/replicas.h"
#include "penstock/settings/setting_words.h"

namespace penstock {
namespace {

constexpr int notes_version = 1;

bool is_image(const DataDescription& data) { return data.kind == DataKind::Images; }

void check_kind(const TrainSettings& settings, const DataDescription& data, bool wants_images) {
  if (is_image(data) != wants_images)
    throw bad_input(fmt::format("`model` = {} with {} data", settings.model, is_image(data) ? "image" : "token"),
                    wants_images ? "IDX images and labels" : "text or token files",
                    wants_images ? "use the `model` gpt, or name IDX files" : "use the `model` mlp or convnet");
}

// Of a kind of device, how many there are here: 0 where this libtorch cannot drive it, or finds none.
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
  return {{"model", settings.model},        {"layers", settings.layers},   {"width", settings.width},
          {"heads", settings.heads},        {"context", settings.context}, {"tied-head", settings.tied_head},
          {"optimizer", settings.optimizer}};
}

nlohmann::json description_json(const DataDescription& data) {
  return {{"kind", static_cast<int>(data.kind)},
          {"vocabulary", data.vocabulary},
          {"channels", data.channels},
          {"rows", data.rows},
          {"columns", data.columns},
          {"classes", data.classes}};
}

bool is_schedule_file(const std::string& schedule) { return schedule.ends_with(".csv"); }

// 1 also for a name that does not exist: make_schedule has the words for that.
int stages_per_rank_of(const std::string& schedule) {
  const ScheduleFamily* family = find_schedule_family(schedule);
  return family == nullptr ? 1 : family->stages_per_rank;
}

}  // namespace

Network make_network(const TrainSettings& settings, const DataDescription& data) {
  if (settings.model == "gpt") {
    check_kind(settings, data, false);
    GptSettings gpt;
    gpt.vocabulary = data.vocabulary;
    gpt.layers = settings.layers;
    gpt.width = settings.width;
    gpt.heads = settings.heads;
    gpt.context = settings.context;
    gpt.dropout = settings.dropout;
    gpt.tied_head = settings.tied_head;
    return make_gpt(gpt);
  }
  if (settings.model == own_model)
    throw bad_input("a run whose network is a program's own", "one of gpt, mlp or convnet",
                    "use the program that trained it: evaluate_run and trained_pipeline take its network");
  check_kind(settings, data, true);
  if (settings.model == "mlp")
    return make_mlp(
        {data.channels * data.rows * data.columns, settings.layers, settings.width, data.classes, settings.dropout});
  ConvnetSettings convnet;
  convnet.channels = data.channels;
  convnet.rows = data.rows;
  convnet.columns = data.columns;
  convnet.layers = settings.layers;
  convnet.width = settings.width;
  // Eight channels a group, or one group where the width does not divide.
  convnet.groups = settings.width % 8 == 0 ? settings.width / 8 : 1;
  convnet.classes = data.classes;
  convnet.dropout = settings.dropout;
  return make_convnet(convnet);
}

namespace {

Schedule read_schedule_file(const TrainSettings& settings, int microbatches) {
  Schedule schedule = parse_schedule(read_file(settings.schedule));
  if (schedule.stages != settings.stages || schedule.microbatches != microbatches)
    throw bad_input(fmt::format("it has {} stages and {} microbatches", schedule.stages, schedule.microbatches),
                    fmt::format("`stages` = {} and {}", settings.stages,
                                settings.replicas == 1 ? fmt::format("`microbatches` is {}", microbatches)
                                                       : fmt::format("{} of the {} microbatches for a replica",
                                                                     microbatches, settings.microbatches)),
                    "give the schedule's own numbers");
  return schedule;
}

// A schedule without a backward passes the verifier, and would leave the weights as they are.
VerifiedSchedule verify_for_training(Schedule schedule) {
  VerifiedSchedule verified = verify(std::move(schedule));
  if (verified->forward_only)
    throw bad_input("a schedule without backward passes", "one that trains", "take another schedule, such as 1f1b");
  return verified;
}

VerifiedSchedule schedule_of_replica(const TrainSettings& settings, int microbatches) {
  if (!is_schedule_file(settings.schedule)) {
    if (settings.schedule.find_first_of("/.") != std::string::npos)
      throw bad_input(fmt::format("`schedule` is \"{}\"", settings.schedule),
                      "a schedule's name, or a file that ends in .csv", "rename the file or correct the name");
    const int stages_per_rank = stages_per_rank_of(settings.schedule);
    if (settings.stages % stages_per_rank != 0)
      throw bad_input(fmt::format("{} with `stages` = {}", settings.schedule, settings.stages),
                      fmt::format("a multiple of {}, the stages that it gives to each rank", stages_per_rank),
                      "change `stages`, or take another schedule");
    return verify_for_training(make_schedule(settings.schedule, settings.stages / stages_per_rank, microbatches));
  }
  try {
    return verify_for_training(read_schedule_file(settings, microbatches));
  } catch (const Error& error) {
    // The verifier knows ranks and positions, but not whose.
    const std::string reason = error.what();
    if (reason.find(settings.schedule) != std::string::npos) throw;
    throw Error(error.kind(), fmt::format("{}: {}", settings.schedule, reason));
  }
}

}  // namespace

VerifiedSchedule make_run_schedule(const TrainSettings& settings) {
  if (settings.replicas == 1) return schedule_of_replica(settings, settings.microbatches);
  std::vector<Schedule> replicas;
  for (int replica = 0; replica < settings.replicas; ++replica) {
    const int share = microbatches_of_replica(settings.microbatches, settings.replicas, replica);
    try {
      replicas.push_back(schedule_of_replica(settings, share).get());
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("replica {} of {}, with {}: {}", replica, settings.replicas,
                                            counted(share, "microbatch"), error.what()));
    }
  }
  return verify(side_by_side(replicas));
}

int ranks_of_run(const TrainSettings& settings) {
  if (is_schedule_file(settings.schedule)) return make_run_schedule(settings)->ranks();
  return settings.stages / stages_per_rank_of(settings.schedule) * settings.replicas;
}

PipelineSettings make_pipeline_settings(const TrainSettings& settings, const Network& network,
                                        const std::function<Tensors()>& first_inputs) {
  PipelineSettings pipeline;
  const auto layers = static_cast<std::int64_t>(network.layers.size());
  if (settings.cut == "uniform") {
    pipeline.cut = uniform_cut(layers, settings.stages);
  } else if (settings.cut == "parameters") {
    pipeline.cut = balanced_cut(parameter_counts(network), settings.stages);
  } else {
    pipeline.cut = parse_cut(settings.cut, layers, settings.stages);
  }
  for (const std::string& device : settings.devices) pipeline.devices.push_back(parse_device(device));
  if (std::ranges::any_of(pipeline.devices, [](at::Device device) { return !device.is_cpu(); }))
    choose_repeatable_algorithms();
  pipeline.threads_per_rank = settings.threads_per_rank;
  pipeline.seed = settings.seed;
  pipeline.optimizer = {settings.optimizer, settings.weight_decay, settings.momentum,
                        settings.beta1,     settings.beta2,        settings.epsilon};
  pipeline.clip_norm = settings.clip;
  pipeline.offload = settings.offload;
  pipeline.precision = settings.precision == "bf16"   ? Precision::BFloat16
                       : settings.precision == "fp16" ? Precision::Float16
                                                      : Precision::Float32;
  pipeline.boundary_dtype = settings.boundary_dtype == "bf16" ? BoundaryDtype::BFloat16 : BoundaryDtype::Same;
  pipeline.recompute = settings.recompute == "selected"
                           ? select_recomputed(layer_footprints(network, first_inputs(), pipeline.precision))
                           : recomputed_layers(settings.recompute, layers);
  pipeline.post_validation = settings.post_validation;
  pipeline.check_finite = settings.check_finite;
  if (!settings.memory_limit.empty()) pipeline.memory_limit = parse_bytes("`memory_limit`", settings.memory_limit);
  pipeline.replicas = settings.replicas;
  pipeline.shard_optimizer = settings.zero == 1;
  pipeline.gradient_bucket = parse_bytes("`gradient_bucket`", settings.gradient_bucket);
  return pipeline;
}

PipelineSettings make_pipeline_settings(const TrainSettings& settings, const Job& job) {
  PipelineSettings pipeline = make_pipeline_settings(settings, job.network, [&] {
    return first_inputs(*job.train, (settings.batch + settings.microbatches - 1) / settings.microbatches);
  });
  pipeline.optimizer.rules = job.rules;
  return pipeline;
}

std::string to_json(const CheckpointNotes& notes) {
  return nlohmann::json{{"penstock", notes_version},
                        {"updates", notes.updates},
                        {"network", network_settings(notes.settings)},
                        {"data", description_json(notes.data)}}
      .dump();
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
    network.at("model").get_to(notes.settings.model);
    take(source, network, "layers", 1, most, notes.settings.layers);
    take(source, network, "width", 1, most, notes.settings.width);
    take(source, network, "heads", 1, most, notes.settings.heads);
    take(source, network, "context", 1, most, notes.settings.context);
    network.at("tied-head").get_to(notes.settings.tied_head);
    network.at("optimizer").get_to(notes.settings.optimizer);
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
