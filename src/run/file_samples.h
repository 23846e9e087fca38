// Datasets of files as samples.
#pragma once

#include <functional>
#include <memory>

#include "penstock/data/dataset.h"
#include "penstock/run/trainer.h"

namespace penstock {

// What the settings name, opened by `open`: all of it at once, or, where sources have weights, each by itself.
[[nodiscard]] Data open_sources(const TrainSettings::Data& data, const std::function<Data(const DataSettings&)>& open);

// The same as it is.
[[nodiscard]] Data open_files(const TrainSettings::Data& data);

// One input, one target. `dataset` is not null.
[[nodiscard]] std::shared_ptr<const Samples> samples_of(std::shared_ptr<const Dataset> dataset);

}  // namespace penstock
