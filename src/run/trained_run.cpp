// What can be done with a trained network: measure it on other data, work with it.
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <numbers>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/data/order.h"
#include "penstock/data/tokenized.h"
#include "penstock/run/train.h"
#include "penstock/run/trainer.h"
#include "penstock/settings/data_sources.h"

#include "run/file_samples.h"
#include "run/job.h"
#include "run/loaded_run.h"
#include "run/model.h"
#include "run/published.h"

namespace penstock {
namespace {

LoadedRun load_own(const std::filesystem::path& out, const Network& network) {
  check_network(network);
  return load_run(out, [&](const TrainSettings& settings, const CheckpointNotes& notes) {
    if (settings.model.kind != ModelKind::Own)
      throw bad_input(fmt::format("{} holds a run of {}", out.string(), to_text(settings.model.kind)),
                      "the run of a program's own network", "use penstock eval or sample for it");
    check_same_network(notes, settings_for(network, settings), notes.data);
    return network;
  });
}

EvalResult evaluate(LoadedRun& run, const Samples& samples, std::int64_t count) {
  const double loss = mean_loss(run.pipeline, samples, evenly_spaced_samples(samples.size(), count), run.settings);
  return {run.step, count, loss};
}

struct SamplesOfData {
  DataDescription description;
  std::shared_ptr<const Samples> samples;
};

SamplesOfData open_samples(const DataSettings& wanted, const LoadedRun& run) {
  if (run.settings.model.kind != ModelKind::Published) {
    const Data opened = open_data(wanted);
    if (opened.description.kind != run.notes.data.kind || opened.description.vocabulary > run.notes.data.vocabulary)
      throw bad_input("data of another kind than the run was trained on", "the same kind and vocabulary",
                      "name other files with `data`");
    return {opened.description, samples_of(opened.train)};
  }
  const std::filesystem::path folder = model_folder_of(run);
  const ModelConfig model = model_of(run.settings, folder);
  const Data opened = open_tokenized(wanted, folder, model.decoder.vocabulary);
  return {opened.description, samples_of_documents(opened.train, model.decoder)};
}

}  // namespace

EvalResult evaluate_run(const std::filesystem::path& out, const std::vector<std::string>& data, std::int64_t samples) {
  LoadedRun run = load_built_in(out);
  if (samples < 0) throw bad_input(fmt::format("`samples` is {}", samples), "at least 0", "0 takes all of it");
  if (have_weights(data_sources(data)))
    throw bad_input("`data` with weights in an evaluation", "files and folders alone, all of which count alike",
                    "evaluate each by itself");
  const DataSettings wanted{{data.begin(), data.end()},
                            run.settings.data.kind,
                            run.settings.data.context,
                            /*held_out=*/0,
                            run.settings.data.field};
  const SamplesOfData opened = open_samples(wanted, run);
  const std::int64_t size = opened.samples->size();
  // One sample a context covers a text once; a sample starts at every byte.
  const std::int64_t stride = opened.description.kind == DataKind::Images ? 1 : run.settings.data.context;
  const std::int64_t whole = std::max<std::int64_t>(1, size / stride);
  const std::int64_t count = samples > 0 ? std::min(samples, size) : whole;
  EvalResult result = evaluate(run, *opened.samples, count);
  const DataDescription& description = opened.description;
  if (description.kind == DataKind::Images) return result;
  result.perplexity = std::exp(result.loss);
  const std::int64_t bytes = description.kind == DataKind::Text ? description.bytes_or_samples : description.text_bytes;
  const double tokens_per_byte = static_cast<double>(description.bytes_or_samples) / static_cast<double>(bytes);
  if (bytes > 0) result.bits_per_byte = result.loss / std::numbers::ln2 * tokens_per_byte;
  return result;
}

EvalResult evaluate_run(const std::filesystem::path& out, const Network& network, const Samples& samples,
                        std::int64_t count) {
  if (count < 0) throw bad_input(fmt::format("{} samples to evaluate", count), "at least 0", "0 takes all of them");
  LoadedRun run = load_own(out, network);
  return evaluate(run, samples, count > 0 ? std::min(count, samples.size()) : samples.size());
}

Pipeline trained_pipeline(const std::filesystem::path& out, const Network& network) {
  return std::move(load_own(out, network).pipeline);
}

}  // namespace penstock
