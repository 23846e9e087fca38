#include "penstock/settings/settings.h"

#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/schedule/replicas.h"
#include "penstock/settings/checks.h"
#include "penstock/settings/data_sources.h"
#include "penstock/settings/visit_settings.h"

namespace penstock {
namespace {

void check_at_least(const char* name, double value, double least) {
  if (!std::isfinite(value))
    throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("a finite number of at least {}", least),
                    "change " + field(name));
  if (value < least)
    throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("at least {}", least),
                    "raise " + field(name));
}

// Numbers near the largest int overflow on their way; these are beyond every machine and far from that.
void check_between(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
  check_at_least(name, static_cast<double>(value), static_cast<double>(least));
  if (value > most)
    throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("at most {}", most),
                    "lower " + field(name));
}

void check_share(const char* name, double value) {
  if (!(value >= 0 && value < 1))
    throw bad_input(fmt::format("{} is {}", field(name), value), "a number in [0, 1)", "change " + field(name));
}

constexpr std::int64_t most = 1'000'000'000;
// A layer has a name and a builder on every rank, and a thread a stack.
constexpr std::int64_t most_layers = 100'000;

void check_data(const TrainSettings::Data& data) {
  static_cast<void>(data_sources(data.paths));
  check_share("held-out", data.held_out);
  check_between("context", data.context, 1, most);
}

void check_has_data(const TrainSettings::Data& data) {
  if (data.paths.empty()) throw bad_input("no `data`", "a file or a folder", "name one in `data`");
}

void check_built_in_model(const TrainSettings::Model& model, const TrainSettings::Data& data) {
  if (model.kind == ModelKind::Own)
    throw bad_input("a run whose network is a program's own", "a run of gpt, mlp or convnet",
                    "go on with it in the program that began it");
  if (model.from_scratch && model.kind != ModelKind::Published)
    throw bad_input(
        fmt::format("`from_scratch` with `model` = {}, which always begins with new weights", to_text(model.kind)),
        "the folder of a published model", "drop `from_scratch`");
  if (data.documents != Documents::Joined && model.kind != ModelKind::Published)
    throw bad_input(fmt::format("`documents` = {} with `model` = {}", word_of(data.documents), to_text(model.kind)),
                    "the folder of a published model", "drop `documents`");
  if (data.field != TrainSettings::Data{}.field && model.kind != ModelKind::Published)
    throw bad_input(fmt::format("`field` = \"{}\" with `model` = {}", shortened(data.field), to_text(model.kind)),
                    "the folder of a published model: others read bytes", "drop `field`");
  if (model.lora != 0 && model.kind != ModelKind::Published)
    throw bad_input(fmt::format("`lora` with `model` = {}", to_text(model.kind)), "the folder of a published model",
                    "drop `lora`");
  if (model.lora != 0 && model.from_scratch)
    throw bad_input("`lora` with `from_scratch`", "weights that adapters stand beside", "drop one of them");
  check_between("lora", model.lora, 0, most);
  check_share("dropout", model.dropout);
  check_between("layers", model.layers, 1, most_layers);
  check_between("width", model.width, 1, most);
  check_between("heads", model.heads, 1, most);
  static_cast<void>(frozen_layers(model.freeze, network_layers(model)));
  if (model.kind == ModelKind::Gpt && model.width % model.heads != 0)
    throw bad_input(fmt::format("{} heads do not divide the width {}", model.heads, model.width),
                    "a width that is a multiple of the heads", "change `heads` or `width`");
}

// \param layers of the network.
void check_layout(const Layout& layout, std::int64_t layers) {
  constexpr int most_ranks = 100'000;
  constexpr int most_threads = 1024;
  constexpr int most_replicas = 4096;
  check_between("stages", layout.stages, 1, most);
  if (!layout.ranks.is_automatic()) check_between("ranks", layout.ranks.count(), 0, most_ranks);
  check_between("threads-per-rank", layout.threads_per_rank, 0, most_threads);
  if (layout.recompute.kind() == Recompute::Layers) static_cast<void>(recomputed_layers(layout.recompute, layers));
  check_between("replicas", layout.replicas, 1, most_replicas);
  check_between("zero", layout.zero, 0, 1);
  for (const auto& [name, size] : {std::pair<const char*, Bytes>{"gradient-bucket", layout.gradient_bucket},
                                   {"memory-limit", layout.memory_limit.value_or(Bytes{1})}})
    if (size.count < 1)
      throw bad_input(fmt::format("{} is {}", field(name), to_string(size)), "at least a byte", "raise " + field(name));
  if (layout.microbatches.is_automatic()) return;
  const int microbatches = layout.microbatches.count();
  check_between("microbatches", microbatches, 1, most);
  if (layout.replicas > microbatches)
    throw bad_input(fmt::format("{} replicas for {}", layout.replicas, counted(microbatches, "microbatch")),
                    "at least one microbatch for each replica", "lower `replicas` or raise `microbatches`");
  check_gradient_tree(layout.gradient_tree, layout.replicas, microbatches);
}

// What is chosen is chosen once, before the first step, by one process.
void check_automatic(const Layout& layout, int processes) {
  if (!is_automatic(layout)) return;
  if (processes > 1)
    throw bad_input(fmt::format("auto with `processes` = {}", processes), "a plan, where several processes share a run",
                    "write a plan with penstock plan and give its file with `plan`");
  if (layout.replicas > 1)
    throw bad_input(fmt::format("auto with `replicas` = {}", layout.replicas), "a plan, where replicas share a run",
                    "write one with penstock plan for that many replicas and give it with `plan`");
  if (layout.ranks.are_the_schedules() && layout.devices.empty() && layout.stages == 1)
    throw bad_input("auto without `ranks`", "the number of ranks to plan for, or auto", "set `ranks`, or `stages`");
  const Recompute::Kind recompute = layout.recompute.kind();
  if (recompute == Recompute::Selected || recompute == Recompute::Layers)
    throw bad_input(fmt::format("`recompute` = {} with auto", shortened(to_text(layout.recompute))),
                    "auto, none or full", "change `recompute`, or choose cut, schedule and microbatches too");
}

// \param largest beyond it an update leaves the range of a float, and the loss is blamed.
void check_rate(const char* name, double value, double largest = 1e9) {
  check_at_least(name, value, 0);
  if (value > largest)
    throw bad_input(fmt::format("{} is {}", field(name), value), fmt::format("at most {}", largest),
                    "lower " + field(name));
}

void check_training(const TrainSettings::Training& training) {
  check_between("batch", training.batch, 1, most);
  check_between("steps", training.steps, 1, most);
  check_between("warmup", training.warmup, 0, most);
  // Each of them holds its minibatch.
  constexpr std::int64_t most_in_flight = 64;
  check_between("steps-in-flight", training.steps_in_flight, 1, most_in_flight);
  check_share("momentum", training.momentum);
  if (training.weights != Precision::Float32 &&
      (training.weights != Precision::BFloat16 || training.precision != Precision::BFloat16))
    throw bad_input(
        fmt::format("`weights` = {} with `precision` = {}", word_of(training.weights), word_of(training.precision)),
        "weights in fp32, or in bf16 where layers compute in bf16 too", "change `weights` or `precision`");
  check_share("beta1", training.beta1);
  check_share("beta2", training.beta2);
  check_rate("learning-rate", training.learning_rate);
  check_rate("final-learning-rate", training.final_learning_rate);
  check_rate("weight-decay", training.weight_decay);
  check_rate("clip", training.clip);
  check_rate("epsilon", training.epsilon);
  if (training.epsilon == 0) throw bad_input("`epsilon` is 0", "more than 0", "raise it");
  // A TOML file, such as the run's own config.toml, holds no larger number.
  if (!std::in_range<std::int64_t>(training.seed))
    throw bad_input(fmt::format("`seed` is {}", training.seed),
                    fmt::format("at most {}", std::numeric_limits<std::int64_t>::max()), "take a smaller one");
}

void check_timeout(const char* name, double seconds) {
  constexpr double least = 0.1;
  constexpr double longest = 1e6;
  check_at_least(name, seconds, least);
  if (seconds > longest)
    throw bad_input(fmt::format("{} is {}", field(name), seconds), fmt::format("at most {} s", longest),
                    "lower " + field(name));
}

void check_processes(const TrainSettings::Processes& processes) {
  constexpr std::int64_t most_processes = 4096;
  check_between("processes", processes.count, 1, most_processes);
  check_between("restarts", processes.restarts, 0, most);
  check_timeout("peer-timeout", processes.peer_timeout);
  check_timeout("join-timeout", processes.join_timeout);
}

void check_output(const TrainSettings::Output& output) {
  check_between("eval-samples", output.eval_samples, 1, most);
  check_between("keep", output.keep, 1, most);
  check_between("eval-every", output.eval_every, 0, most);
  check_between("checkpoint-every", output.checkpoint_every, 0, most);
}

void check_folder(const TrainSettings::Output& output) {
  if (output.folder.empty()) throw bad_input("no `out`", "a folder for the run", "name one in `out`");
}

void check_any_network(const TrainSettings& settings) {
  const Layout& layout = settings.layout;
  check_training(settings.training);
  check_layout(layout, network_layers(settings.model));
  check_rate("drift", settings.planning.drift);
  check_processes(settings.processes);
  check_output(settings.output);
  check_automatic(layout, settings.processes.count);
  if (!layout.microbatches.is_automatic() && layout.microbatches.count() > settings.training.batch)
    throw bad_input(
        fmt::format("{} microbatches of a batch of {}", layout.microbatches.count(), settings.training.batch),
        "at least one sample a microbatch", "lower `microbatches` or raise `batch`");
}

}  // namespace

const char* heading(SettingGroup group) {
  switch (group) {
    case SettingGroup::Data:
      return "What is learned from";
    case SettingGroup::Model:
      return "The network";
    case SettingGroup::Layout:
      return "How it is cut and scheduled";
    case SettingGroup::Training:
      return "How it is trained";
    case SettingGroup::Processes:
      return "Where it runs";
    case SettingGroup::Output:
      return "What is kept and reported";
  }
  return "";
}

std::int64_t network_layers(const TrainSettings::Model& model) {
  switch (model.kind.kind()) {
    case ModelKind::Gpt:
    case ModelKind::Convnet:
    case ModelKind::Published:
      return model.layers + 2;
    case ModelKind::Mlp:
      return model.layers + 1;
    case ModelKind::Own:
      break;
  }
  return model.layers;
}

void check_settings(const TrainSettings& settings) {
  check_measured_settings(settings);
  check_has_data(settings.data);
  check_folder(settings.output);
}

void check_measured_settings(const TrainSettings& settings) {
  check_built_in_model(settings.model, settings.data);
  // What the layers of a published model cost can be measured with drawn tokens.
  if (settings.model.kind != ModelKind::Published) check_has_data(settings.data);
  check_data(settings.data);
  check_any_network(settings);
}

void check_run_settings(const TrainSettings& settings) {
  check_folder(settings.output);
  check_any_network(settings);
}

}  // namespace penstock
