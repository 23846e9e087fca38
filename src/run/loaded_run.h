// A trained network at work: what evaluation and sampling begin with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "penstock/checkpoint/checkpoint.h"
#include "penstock/data/dataset.h"
#include "penstock/models/config.h"
#include "penstock/nn/layer.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/settings/settings.h"

#include "run/model.h"

namespace penstock {

// A pipeline with the weights of a run's last whole checkpoint, on the stages and devices of that run.
struct LoadedRun {
  TrainSettings settings;
  CheckpointNotes notes;
  std::int64_t step;
  Pipeline pipeline;
};

// The last whole checkpoint of a run. Throws Error (BadInput) where there is none.
[[nodiscard]] CheckpointId trained_checkpoint(const std::filesystem::path& out);

// \param make what makes the run's network.
[[nodiscard]] LoadedRun load_run(const std::filesystem::path& out,
                                 const std::function<Network(const TrainSettings&, const CheckpointNotes&)>& make);

// Loads a run of a built-in network or a published model, or a published model's folder itself, on one stage.
[[nodiscard]] LoadedRun load_built_in(const std::filesystem::path& out);

// The folder that holds the configuration and the tokenizer of such a run of a published model.
[[nodiscard]] std::filesystem::path model_folder_of(const LoadedRun& run);

}  // namespace penstock
