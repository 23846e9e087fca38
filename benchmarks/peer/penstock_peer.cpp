// penstock's side of script/bench peer. Writes its initial weights and its minibatch for the other side, says with
// which cut, and then does as many training steps as each line on the standard input says; benchmarks/peer/peer.py
// drives both sides.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <deque>
#include <fmt/format.h>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/nn/modules/linear.h>

#include "penstock/base/error.h"
#include "penstock/base/types.h"
#include "penstock/checkpoint/safetensors.h"
#include "penstock/exec/memory.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/generators.h"
#include "penstock/transport/c10d.h"

namespace {

using namespace penstock;

struct Settings {
  std::string network = "gpt";
  GptSettings gpt;
  std::string schedule = "1f1b";
  int ranks = 2;
  int stages_per_rank = 1;
  int microbatches = 8;
  std::int64_t batch = 32;
  double learning_rate = 0.01;
  double momentum = 0.9;
  std::string tensors;
  ProcessSettings processes;  // one: ranks are threads
};

void add_options(CLI::App& app, Settings& settings) {
  app.add_option("--network", settings.network)->check(CLI::IsMember({"gpt", "linear"}))->capture_default_str();
  app.add_option("--layers", settings.gpt.layers, "gpt: blocks; linear: layers")->capture_default_str();
  app.add_option("--width", settings.gpt.width)->capture_default_str();
  app.add_option("--heads", settings.gpt.heads)->capture_default_str();
  app.add_option("--context", settings.gpt.context)->capture_default_str();
  app.add_option("--vocabulary", settings.gpt.vocabulary)->capture_default_str();
  app.add_option("--schedule", settings.schedule)->capture_default_str();
  app.add_option("--ranks", settings.ranks)->capture_default_str();
  app.add_option("--stages-per-rank", settings.stages_per_rank)->capture_default_str();
  app.add_option("--microbatches", settings.microbatches)->capture_default_str();
  app.add_option("--batch", settings.batch)->capture_default_str();
  app.add_option("--learning-rate", settings.learning_rate)->capture_default_str();
  app.add_option("--momentum", settings.momentum)->capture_default_str();
  app.add_option("--tensors", settings.tensors, "Where initial weights, input and target are written")->required();
  app.add_option("--process", settings.processes.process, "This one's number, where each rank is a process");
  app.add_option("--processes", settings.processes.processes)->capture_default_str();
  app.add_option("--port", settings.processes.port, "Of process 0, at loopback");
}

Network make_network(const Settings& settings) {
  if (settings.network == "gpt") return make_gpt(settings.gpt);
  Network network;
  const torch::nn::LinearOptions options(settings.gpt.width, settings.gpt.width);
  for (std::int64_t layer = 0; layer < settings.gpt.layers; ++layer)
    network.layers.push_back(layer_of<torch::nn::LinearImpl>("linear", options));
  network.loss = squared_error;
  return network;
}

at::Tensor make_samples(const Settings& settings) {
  if (settings.network == "gpt")
    return at::randint(settings.gpt.vocabulary, {settings.batch, settings.gpt.context}, at::kLong);
  return at::randn({settings.batch, settings.gpt.width});
}

void answer(const nlohmann::json& line) {
  fmt::print("{}\n", line.dump());
  std::fflush(stdout);
}

PipelineSettings make_pipeline_settings(const Settings& settings, const Network& network, int stages) {
  PipelineSettings pipeline_settings;
  pipeline_settings.cut = uniform_cut(static_cast<std::int64_t>(network.layers.size()), stages);
  pipeline_settings.threads_per_rank = 1;
  pipeline_settings.seed = 1;
  pipeline_settings.optimizer = {.kind = OptimizerKind::Sgd, .weight_decay = 0, .momentum = settings.momentum};
  return pipeline_settings;
}

void serve(Settings settings) {
  const Network network = make_network(settings);
  const Schedule schedule =
      make_schedule(settings.schedule, settings.ranks, settings.microbatches, settings.stages_per_rank);
  const PipelineSettings pipeline_settings = make_pipeline_settings(settings, network, schedule.stages);
  at::manual_seed(1);
  const at::Tensor input = make_samples(settings);
  const at::Tensor target = make_samples(settings);
  const bool first = settings.processes.process == 0;
  if (first) {
    // Of all ranks, which a pipeline in several processes would not have here. Weights depend on the seed alone.
    std::vector<NamedTensor> tensors{{"input", input}, {"target", target}};
    for (auto& [name, tensor] : Pipeline(network, verify(schedule), pipeline_settings).weights())
      tensors.push_back({name, tensor});
    write_safetensors(settings.tensors, tensors, {});
  }
  std::optional<ProcessGroup> group;
  settings.processes.ranks = schedule.ranks();
  if (settings.processes.processes > 1) group.emplace(settings.processes);
  Pipeline pipeline(network, verify(schedule), pipeline_settings, group ? &*group : nullptr);
  answer(first ? nlohmann::json{{"cut", pipeline_settings.cut}} : nlohmann::json::object());
  const SteadyClock clock;
  std::string line;
  for (std::int64_t step = 0; std::getline(std::cin, line);) {
    const std::int64_t end_of_row = step + std::stoll(line);
    // As the peer's barrier: processes are told one after the other.
    static_cast<void>(pipeline.exchange(""));
    const Milliseconds start = clock.now();
    double loss = 0;
    std::deque<StepHandle> in_flight;
    while (step < end_of_row || !in_flight.empty()) {
      if (step < end_of_row) in_flight.push_back(pipeline.submit(input, target, step++, settings.learning_rate));
      if (step < end_of_row && std::ssize(in_flight) < pipeline_settings.steps_in_flight) continue;
      loss = in_flight.front().wait().loss;
      in_flight.pop_front();
    }
    const Milliseconds end = clock.now();
    nlohmann::json times{{"start", start.count}, {"end", end.count}};
    if (first) times["loss"] = loss;
    answer(times);
  }
}

}  // namespace

int main(int argc, char** argv) {
  penstock::keep_freed_memory();
  Settings settings;
  CLI::App app("penstock's side of script/bench peer: as many training steps as each line on the standard input says");
  add_options(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    serve(settings);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::BadInput) {
      answer({{"refused", error.what()}});
      return 2;
    }
    fmt::print(stderr, "penstock_peer: error: {}\n", error.what());
    return 1;
  }
}
