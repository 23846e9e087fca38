#include "run/job.h"

#include <fmt/format.h>
#include <numeric>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/nn/freeze.h"
#include "penstock/settings/visit_settings.h"

#include "run/file_samples.h"
#include "run/model.h"
#include "run/published.h"

namespace penstock {

namespace {

Job frozen(Job job, const TrainSettings& settings) {
  const auto layers = std::ssize(job.network.layers);
  job.network = with_frozen_layers(std::move(job.network), frozen_layers(settings.model.freeze, layers));
  return job;
}

}  // namespace

Job job_of(const TrainSettings& settings) {
  if (settings.model.kind == ModelKind::Published) return frozen(published_job(settings), settings);
  Data data = open_files(settings.data);
  Job job;
  job.network = make_network(settings, data.description);
  job.data = data.description;
  job.train = samples_of(data.train);
  if (data.held_out) job.held_out = samples_of(data.held_out);
  job.files = std::move(data);
  return frozen(std::move(job), settings);
}

Job job_of(Training training) {
  if (!training.train)
    throw bad_input("a training without samples to learn from", "Training::train", "give it samples (samples_of)");
  check_network(training.network);
  Job job;
  job.network = std::move(training.network);
  job.data.kind = DataKind::Own;
  job.data.bytes_or_samples = training.train->size() + (training.held_out ? training.held_out->size() : 0);
  job.train = std::move(training.train);
  job.held_out = std::move(training.held_out);
  job.rules = std::move(training.rules);
  job.learning_rate = std::move(training.learning_rate);
  return job;
}

TrainSettings settings_for(const Network& network, const TrainSettings& settings) {
  TrainSettings own = settings;
  const TrainSettings defaults;
  const std::int64_t layers = std::ssize(network.layers);
  // As the folder of such a run has them.
  if (own.model.kind == ModelKind::Own) {
    own.model.kind = defaults.model.kind;
    own.model.layers = defaults.model.layers;
  }
  visit_settings(own, [&](SettingGroup group, const std::string& name, const auto& value, const char* /*meaning*/) {
    if (group != SettingGroup::Data && group != SettingGroup::Model) return;
    visit_settings(defaults, [&](SettingGroup, const std::string& other, const auto& usual, const char*) {
      if constexpr (std::same_as<decltype(value), decltype(usual)>) {
        if (name == other && value != usual)
          throw bad_input(fmt::format("the setting {} for a network of one's own", name),
                          "its default: it belongs to the built-in networks and their data",
                          "give Training its network and samples instead");
      }
    });
  });
  own.model.kind = ModelKind::Own;
  own.model.layers = layers;
  return own;
}

std::vector<SourceShare> train_sources(const Job& job) {
  if (job.files && !job.files->train_sources.empty()) return job.files->train_sources;
  return {{job.train->size()}};
}

std::vector<SourceShare> held_out_sources(const Job& job) {
  if (job.files && !job.files->held_out_sources.empty()) return job.files->held_out_sources;
  return {{job.held_out->size()}};
}

Tensors first_inputs(const Samples& samples, std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  for (std::int64_t& number : numbers) number %= samples.size();
  return split_minibatch(samples.minibatch(numbers), 1).front().inputs;
}

}  // namespace penstock
