#include "run/loaded_run.h"

#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/models/decoder.h"
#include "penstock/models/weights.h"
#include "penstock/run/train.h"
#include "penstock/schedule/replicas.h"

#include "run/published.h"
#include "run/run_folder.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

bool is_published_model(const fs::path& out) {
  std::error_code ignored;
  return !fs::exists(RunFolder::config(out), ignored) && fs::exists(out / config_file, ignored);
}

// With the weights that were published, as after no step.
LoadedRun load_published(const fs::path& folder) {
  constexpr std::int64_t longest_context = 1024;
  TrainSettings settings;
  settings.model.kind = ModelChoice((folder / "").string());
  settings = with_published_shape(settings);
  settings.data.context = std::min(longest_context, read_config(folder).decoder.most_positions);
  const ModelConfig model = model_of(settings, folder);
  const auto weights = std::make_shared<const ModelWeights>(folder, model);
  settings.layout.microbatches = 1;
  settings.layout.threads_per_rank = default_threads(1);
  CheckpointNotes notes;
  notes.settings = settings;
  notes.data.kind = DataKind::Tokens16;
  notes.data.vocabulary = model.decoder.vocabulary;
  Network network = make_decoder(
      model.decoder, [weights](std::int64_t layer, torch::nn::Module& module) { weights->fill(layer, module); });
  PipelineSettings pipeline = make_pipeline_settings(settings, network, [] { return Tensors{}; });
  return {settings, notes, 0, Pipeline(std::move(network), schedule_of(settings.layout), std::move(pipeline))};
}

}  // namespace

CheckpointId trained_checkpoint(const fs::path& out) {
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
  return *latest;
}

LoadedRun load_run(const std::filesystem::path& out,
                   const std::function<Network(const TrainSettings&, const CheckpointNotes&)>& make) {
  TrainSettings settings = settings_of_run(out);
  const CheckpointId latest = trained_checkpoint(out);
  const CheckpointReader reader(latest);
  const CheckpointNotes notes = parse_notes(reader.metadata(), latest.path);
  settings.model.dropout = 0;
  settings.layout.memory_limit.reset();
  settings.layout.recompute = Recompute::None;  // without a backward there is nothing to choose
  // One replica with its microbatches, which a schedule from a file is for.
  settings.layout.microbatches =
      microbatches_of_replica(settings.layout.microbatches.count(), settings.layout.replicas, 0);
  settings.layout.replicas = 1;
  settings.layout.zero = 0;
  Network network = make(settings, notes);
  PipelineSettings pipeline_settings = make_pipeline_settings(settings, network, [] { return Tensors{}; });
  LoadedRun loaded{settings, notes, latest.step,
                   Pipeline(std::move(network), schedule_of(settings.layout), std::move(pipeline_settings))};
  loaded.pipeline.load(reader, notes.updates, /*with_optimizer=*/false);
  return loaded;
}

LoadedRun load_built_in(const fs::path& out) {
  if (is_published_model(out)) return load_published(out);
  return load_run(out, [&out](const TrainSettings& settings, const CheckpointNotes& notes) {
    if (settings.model.kind != ModelKind::Published) return make_network(settings, notes.data);
    // Its weights are those of the checkpoint.
    return make_decoder(model_of(settings, kept_model(out)).decoder, [](std::int64_t, torch::nn::Module&) {});
  });
}

fs::path model_folder_of(const LoadedRun& run) {
  return run.settings.output.folder.empty() ? fs::path(run.settings.model.kind.folder())
                                            : kept_model(run.settings.output.folder);
}

}  // namespace penstock
