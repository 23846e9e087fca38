// penstock's side of script/bench peer. Writes its initial weights and its minibatch for the other side, says with
// which cut, and then does a training step for each line on the standard input; benchmarks/peer/peer.py drives both
// sides.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fmt/format.h>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/nn/modules/linear.h>

#include "penstock/base/clock.h"
#include "penstock/base/error.h"
#include "penstock/checkpoint/safetensors.h"
#include "penstock/exec/memory.h"
#include "penstock/nn/networks.h"
#include "penstock/plan/cut.h"
#include "penstock/schedule/generators.h"
#include "penstock/train/pipeline.h"

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

void serve(const Settings& settings) {
  Network network = make_network(settings);
  PipelineSettings pipeline_settings;
  const Schedule schedule =
      make_schedule(settings.schedule, settings.ranks, settings.microbatches, settings.stages_per_rank);
  pipeline_settings.cut = uniform_cut(static_cast<std::int64_t>(network.layers.size()), schedule.stages);
  pipeline_settings.threads_per_rank = 1;
  pipeline_settings.seed = 1;
  pipeline_settings.optimizer = {.kind = "sgd", .weight_decay = 0, .momentum = settings.momentum};
  Pipeline pipeline(std::move(network), verify(schedule), pipeline_settings);
  at::manual_seed(1);
  const at::Tensor input = make_samples(settings);
  const at::Tensor target = make_samples(settings);
  std::vector<NamedTensor> tensors{{"input", input}, {"target", target}};
  for (auto& [name, tensor] : pipeline.weights()) tensors.push_back({name, tensor});
  write_safetensors(settings.tensors, tensors, {});
  answer({{"cut", pipeline_settings.cut}});
  const SteadyClock clock;
  std::string line;
  for (std::int64_t step = 0; std::getline(std::cin, line); ++step) {
    const Milliseconds start = clock.now();
    const StepResult result = pipeline.step(input, target, step, settings.learning_rate);
    const Milliseconds end = clock.now();
    answer({{"loss", result.loss}, {"start", start.count}, {"end", end.count}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  penstock::keep_freed_memory();
  Settings settings;
  CLI::App app("penstock's side of script/bench peer: a training step for each line on the standard input");
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
