// What a run trains, whether the settings describe it or a program brought it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "penstock/data/dataset.h"
#include "penstock/exec/microbatch.h"
#include "penstock/nn/layer.h"
#include "penstock/run/trainer.h"
#include "penstock/settings/settings.h"

namespace penstock {

struct Job {
  Network network;
  DataDescription data;
  std::shared_ptr<const Samples> train;     // never null
  std::shared_ptr<const Samples> held_out;  // null where nothing is held out
  std::optional<Data> files;                // of a built-in network or a published model
  std::string shape;                        // of a published model, in words
  bool weights_have_gone = false;           // of a published model whose folder is no longer there
  std::vector<UpdateRule> rules;
  std::function<double(std::int64_t step)> learning_rate;  // empty: that of the settings
};

// Opens the data. Throws Error (BadInput) where it cannot be read, or model and data do not fit.
[[nodiscard]] Job job_of(const TrainSettings& settings);
// Throws Error (BadInput) where there is nothing to train on.
[[nodiscard]] Job job_of(Training training);

// For a network of one's own: the settings as the run's folder keeps them. Throws Error (BadInput) that names a setting
// of data or built-in networks that was changed.
[[nodiscard]] TrainSettings settings_for(const Network& network, const TrainSettings& settings);

// The sources that its samples come from: those of a mixture, or one.
[[nodiscard]] std::vector<SourceShare> train_sources(const Job& job);
[[nodiscard]] std::vector<SourceShare> held_out_sources(const Job& job);

// What the first layer takes for a microbatch of that many samples.
[[nodiscard]] Tensors first_inputs(const Samples& samples, std::int64_t count);

}  // namespace penstock
