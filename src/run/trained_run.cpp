// What can be done with a trained network: measure it on other data, work with it.
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <numbers>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/list_files.h"
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
  // The width of the tokens that it was trained on says nothing of texts.
  DataSettings own = wanted;
  const auto is_text = [](const std::filesystem::path& path) { return path.extension() != ".bin"; };
  if (own.kind != DataKind::Text && std::ranges::all_of(list_files(own.paths), is_text)) own.kind.reset();
  const Data opened = open_tokenized(own, folder, model.decoder.vocabulary);
  return {opened.description, samples_of_documents(opened.train, model.decoder)};
}

// The bytes of text that a token stands for, on average; 0: not known.
double bytes_of_token(const DataDescription& data) {
  if (data.kind == DataKind::Text) return 1;
  return static_cast<double>(data.text_bytes) / static_cast<double>(data.bytes_or_samples);
}

// \param bytes of a token; 0: not known.
EvalResult said_of(std::int64_t step, std::int64_t samples, double loss, DataKind kind, double bytes) {
  EvalResult result{step, samples, loss};
  if (kind == DataKind::Images) return result;
  result.perplexity = std::exp(loss);
  if (bytes > 0) result.bits_per_byte = loss / std::numbers::ln2 / bytes;
  return result;
}

// \param count 0: all of it.
EvalResult evaluate(LoadedRun& run, const SamplesOfData& data, std::int64_t count) {
  const std::int64_t size = data.samples->size();
  // One sample a context covers a text once; a sample starts at every byte.
  const std::int64_t stride = data.description.kind == DataKind::Images ? 1 : run.settings.data.context;
  const std::int64_t whole = std::max<std::int64_t>(1, size / stride);
  count = count > 0 ? std::min(count, size) : whole;
  const double loss = mean_loss(run.pipeline, *data.samples, evenly_spaced_samples(size, count), run.settings);
  return said_of(run.step, count, loss, data.description.kind, bytes_of_token(data.description));
}

// Of a token that is drawn from the sources by their weights.
EvalResult together(std::int64_t step, std::vector<EvalSource> sources, const std::vector<SamplesOfData>& data) {
  std::int64_t samples = 0;
  double loss = 0;
  double bytes = 0;
  bool known = true;
  for (std::size_t source = 0; source < sources.size(); ++source) {
    const double of_token = bytes_of_token(data[source].description);
    known = known && of_token > 0;
    samples += sources[source].samples;
    loss += sources[source].share * sources[source].loss;
    bytes += sources[source].share * of_token;
  }
  EvalResult result = said_of(step, samples, loss, data.front().description.kind, known ? bytes : 0);
  result.sources = std::move(sources);
  return result;
}

}  // namespace

EvalResult evaluate_run(const std::filesystem::path& out, const std::vector<std::string>& data, std::int64_t samples,
                        const std::optional<std::string>& field) {
  LoadedRun run = load_built_in(out);
  if (samples < 0) throw bad_input(fmt::format("`samples` is {}", samples), "at least 0", "0 takes all of it");
  if (field && run.settings.model.kind != ModelKind::Published)
    throw bad_input(fmt::format("`field` for a run of {}", to_text(run.settings.model.kind)),
                    "a published model: others read bytes", "drop `field`");
  const std::vector<DataSource> named = data_sources(data);
  DataSettings wanted{
      {}, run.settings.data.kind, run.settings.data.context, /*held_out=*/0, field.value_or(run.settings.data.field)};
  const auto opened = [&](const std::vector<std::string>& paths) {
    wanted.paths = {paths.begin(), paths.end()};
    return open_samples(wanted, run);
  };
  if (!have_weights(named)) return evaluate(run, opened(paths_of(named)), samples);
  // All are opened, and their faults found, before the first is evaluated.
  std::vector<SamplesOfData> all;
  std::int64_t weights = 0;
  for (const DataSource& source : named) {
    all.push_back(opened({source.path}));
    weights += source.weight;
  }
  std::vector<EvalSource> sources;
  for (std::size_t source = 0; source < named.size(); ++source) {
    const EvalResult own = evaluate(run, all[source], samples);
    const double share = static_cast<double>(named[source].weight) / static_cast<double>(weights);
    sources.push_back({named[source].path, share, own.samples, own.loss, own.perplexity, own.bits_per_byte});
  }
  return together(run.step, std::move(sources), all);
}

EvalResult evaluate_run(const std::filesystem::path& out, const Network& network, const Samples& samples,
                        std::int64_t count) {
  if (count < 0) throw bad_input(fmt::format("{} samples to evaluate", count), "at least 0", "0 takes all of them");
  LoadedRun run = load_own(out, network);
  count = count > 0 ? std::min(count, samples.size()) : samples.size();
  const double loss = mean_loss(run.pipeline, samples, evenly_spaced_samples(samples.size(), count), run.settings);
  return {run.step, count, loss};
}

Pipeline trained_pipeline(const std::filesystem::path& out, const Network& network) {
  return std::move(load_own(out, network).pipeline);
}

}  // namespace penstock
