// A run whose network is a published model: its shape and tokenizer are those of a folder, and at first its weights.
#pragma once

#include <filesystem>
#include <memory>

#include "penstock/data/dataset.h"
#include "penstock/models/config.h"
#include "penstock/nn/layer.h"
#include "penstock/settings/settings.h"

#include "run/job.h"

namespace penstock {

// The folder within a run's that keeps config.json and tokenizer: what the run needs of its model but weights.
[[nodiscard]] std::filesystem::path kept_model(const std::filesystem::path& out);

// The folder that a run's model is read from: the one that the settings name, or where that has gone, what the run has
// kept. Throws Error (BadInput) where neither is there.
[[nodiscard]] std::filesystem::path folder_of_model(const TrainSettings& settings);

// Throws Error (BadInput) where the file is not there or the context is longer than the positions that it has learned.
[[nodiscard]] ModelConfig model_of(const TrainSettings& settings, const std::filesystem::path& folder);

// The samples of a dataset; where documents are kept apart, what follows the end of one is not to be told from it.
[[nodiscard]] std::shared_ptr<const Samples> samples_of_documents(std::shared_ptr<const Dataset> dataset,
                                                                  const DecoderSettings& decoder);

// What `job_of` makes for such a model. Throws Error (BadInput) for a context beyond the positions that the model was
// made for, unless a run goes on that has it. Weights are opened, and read by whoever builds a layer.
[[nodiscard]] Job published_job(const TrainSettings& settings);

}  // namespace penstock
