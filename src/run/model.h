// From settings and a description of the data to a network, and how a checkpoint tells which network it is of.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "penstock/data/dataset.h"
#include "penstock/nn/layer.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/run/trainer.h"
#include "penstock/settings/settings.h"

#include "run/job.h"

namespace penstock {

// Throws Error (BadInput) where model and data do not fit.
[[nodiscard]] Network make_network(const TrainSettings& settings, const DataDescription& data);

// \param first_inputs what the first layer takes for a largest microbatch; called only where layers to recompute are
// selected by what they keep.
[[nodiscard]] PipelineSettings make_pipeline_settings(const TrainSettings& settings, const Network& network,
                                                      const std::function<Tensors()>& first_inputs);
// The same, with inputs from the samples that the run learns from.
[[nodiscard]] PipelineSettings make_pipeline_settings(const TrainSettings& settings, const Job& job);

// What a checkpoint keeps beside its tensors.
struct CheckpointNotes {
  TrainSettings settings;  // only what defines the network is compared
  DataDescription data;
  std::int64_t updates = 0;
  std::string shape;  // of a published model
};
[[nodiscard]] std::string to_json(const CheckpointNotes& notes);
// Throws Error (BadInput) that names the checkpoint where the text is not penstock's.
[[nodiscard]] CheckpointNotes parse_notes(const std::string& json, const std::filesystem::path& checkpoint);

// The mean loss of the samples with these numbers, `settings.batch` at a time, in as many microbatches as in training.
// `stop` is asked now and then, as often in every process; true ends it with NaN.
[[nodiscard]] double mean_loss(Pipeline& pipeline, const Samples& samples, const std::vector<std::int64_t>& numbers,
                               const TrainSettings& settings, const std::function<bool()>& stop = {});

// Throws Error (BadInput) that names the first setting of the network that differs.
void check_same_network(const CheckpointNotes& saved, const TrainSettings& settings, const DataDescription& data);

}  // namespace penstock
