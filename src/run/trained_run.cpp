// What can be done with a trained network: measure it on other data, draw text from it.
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/data/order.h"
#include "penstock/run/train.h"
#include "penstock/run/trainer.h"
#include "penstock/schedule/replicas.h"

#include "run/job.h"
#include "run/model.h"

namespace penstock {
namespace {

// A pipeline with the weights of a run's last whole checkpoint, on the stages and devices of that run.
struct Loaded {
  TrainSettings settings;
  CheckpointNotes notes;
  std::int64_t step;
  Pipeline pipeline;
};

// \param make what makes the run's network.
Loaded load_run(const std::filesystem::path& out,
                const std::function<Network(const TrainSettings&, const CheckpointNotes&)>& make) {
  TrainSettings settings = settings_of_run(out);
  std::vector<SkippedCheckpoint> skipped;
  const auto latest = latest_whole_checkpoint(out / "checkpoints", &skipped);
  if (!latest && !skipped.empty())
    throw bad_input(fmt::format("{} has no whole checkpoint; the newest is not: {}", out.string(),
                                skipped.front().reason.substr(0, skipped.front().reason.find(';'))),
                    "a checkpoint that penstock train has written whole",
                    "restore the folder checkpoints, or train again in another `out`");
  if (!latest)
    throw bad_input(fmt::format("{} has no whole checkpoint", out.string()), "a run that has saved at least once",
                    "train it for longer, or lower `checkpoint_every`");
  const CheckpointReader reader(*latest);
  const CheckpointNotes notes = parse_notes(reader.metadata(), latest->path);
  settings.dropout = 0;
  settings.memory_limit.clear();
  settings.recompute = "none";  // without a backward there is nothing to choose
  // One replica with its microbatches, which a schedule from a file is for.
  settings.microbatches = microbatches_of_replica(settings.microbatches, settings.replicas, 0);
  settings.replicas = 1;
  settings.zero = 0;
  Network network = make(settings, notes);
  PipelineSettings pipeline_settings = make_pipeline_settings(settings, network, [] { return Tensors{}; });
  Loaded loaded{settings, notes, latest->step,
                Pipeline(std::move(network), make_run_schedule(settings), std::move(pipeline_settings))};
  loaded.pipeline.load(reader, notes.updates, /*with_optimizer=*/false);
  return loaded;
}

Loaded load_built_in(const std::filesystem::path& out) {
  return load_run(out, [](const TrainSettings& settings, const CheckpointNotes& notes) {
    return make_network(settings, notes.data);
  });
}

Loaded load_own(const std::filesystem::path& out, const Network& network) {
  check_network(network);
  return load_run(out, [&](const TrainSettings& settings, const CheckpointNotes& notes) {
    if (settings.model != own_model)
      throw bad_input(fmt::format("{} holds a run of {}", out.string(), settings.model),
                      "the run of a program's own network", "use penstock eval or sample for it");
    check_same_network(notes, settings_for(network, settings), notes.data);
    return network;
  });
}

EvalResult evaluate(Loaded& run, const Samples& samples, std::int64_t count) {
  const double loss = mean_loss(run.pipeline, samples, evenly_spaced_samples(samples.size(), count), run.settings);
  return {run.step, count, loss};
}

std::int64_t draw(const at::Tensor& logits, double temperature, at::Generator& generator) {
  if (temperature == 0) return logits.argmax().item<std::int64_t>();
  // From the largest down, so that no temperature, however small, makes infinities that have no softmax.
  const at::Tensor scores = logits.to(at::kDouble);
  return at::softmax((scores - scores.max()) / temperature, -1)
      .multinomial(1, /*replacement=*/false, generator)
      .item<std::int64_t>();
}

}  // namespace

EvalResult evaluate_run(const std::filesystem::path& out, const std::vector<std::string>& data, std::int64_t samples) {
  Loaded run = load_built_in(out);
  if (samples < 0) throw bad_input(fmt::format("`samples` is {}", samples), "at least 0", "0 takes all of it");
  const Data opened =
      open_data({{data.begin(), data.end()}, run.settings.data_kind, run.settings.context, /*held_out=*/0});
  if (opened.description.kind != run.notes.data.kind || opened.description.vocabulary > run.notes.data.vocabulary)
    throw bad_input("data of another kind than the run was trained on", "the same kind and vocabulary",
                    "name other files with `data`");
  const std::int64_t size = opened.train->size();
  // One sample a context covers a text once; a sample starts at every byte.
  const std::int64_t stride = opened.description.kind == DataKind::Images ? 1 : run.settings.context;
  const std::int64_t whole = std::max<std::int64_t>(1, size / stride);
  const std::int64_t count = samples > 0 ? std::min(samples, size) : whole;
  return evaluate(run, *samples_of(opened.train), count);
}

EvalResult evaluate_run(const std::filesystem::path& out, const Network& network, const Samples& samples,
                        std::int64_t count) {
  if (count < 0) throw bad_input(fmt::format("{} samples to evaluate", count), "at least 0", "0 takes all of them");
  Loaded run = load_own(out, network);
  return evaluate(run, samples, count > 0 ? std::min(count, samples.size()) : samples.size());
}

Pipeline trained_pipeline(const std::filesystem::path& out, const Network& network) {
  return std::move(load_own(out, network).pipeline);
}

void sample_run(const std::filesystem::path& out, const SampleSettings& settings,
                const std::function<void(char)>& on_byte) {
  if (settings.prompt.empty()) throw bad_input("an empty `prompt`", "at least one byte", "give a prompt");
  if (settings.bytes < 1) throw bad_input(fmt::format("`bytes` is {}", settings.bytes), "at least 1", "raise `bytes`");
  if (!(settings.temperature >= 0) || std::isinf(settings.temperature))
    throw bad_input(fmt::format("`temperature` is {}", settings.temperature), "a finite number of at least 0",
                    "change `temperature`");
  Loaded run = load_built_in(out);
  if (run.notes.data.kind != DataKind::Text)
    throw bad_input("a run whose data is not text", "one trained on bytes", "sample from a run on text files");
  std::vector<std::int64_t> text;
  for (const char letter : settings.prompt) text.push_back(static_cast<unsigned char>(letter));
  at::Generator generator = at::detail::createCPUGenerator(settings.seed);
  const auto context = static_cast<std::size_t>(run.settings.context);
  std::size_t remembered = 0;  // of the text's end, by the layers
  using enum StepSettings::Sequences;
  for (std::int64_t drawn = 0; drawn < settings.bytes; ++drawn) {
    // Positions are learned up to the context: when they are used up, the last half of it is read again.
    const bool goes_on = remembered > 0 && remembered < context;
    const std::size_t again = remembered > 0 ? std::max<std::size_t>(context / 2, 1) : context;
    const std::size_t seen = goes_on ? 1 : std::min(text.size(), again);
    const at::Tensor input =
        at::tensor(at::ArrayRef<std::int64_t>(text).slice(text.size() - seen), at::kLong).unsqueeze(0);
    const std::vector<Tensors> outputs = run.pipeline.forward({{{input}, {}}}, goes_on ? Continue : Begin);
    remembered = goes_on ? remembered + 1 : seen;
    text.push_back(draw(outputs.front().front()[0][-1].to(at::kCPU), settings.temperature, generator));
    on_byte(static_cast<char>(text.back()));
  }
}

}  // namespace penstock
