#include "penstock/run/monitor.h"

#include <chrono>
#include <utility>

namespace penstock {
namespace {

constexpr double ms_in_second = 1000;

void add_by_rank(std::vector<Figure>& figures, const char* name, const char* meaning, const std::vector<Bytes>& sizes) {
  for (std::size_t rank = 0; rank < sizes.size(); ++rank)
    figures.push_back({"memory", name, meaning, static_cast<double>(sizes[rank].count), static_cast<int>(rank)});
}

}  // namespace

std::vector<Figure> figures_of(const StepMetrics& metrics) {
  std::vector<Figure> figures = {
      {"loss", "training_loss", "mean over the minibatch, before the update", metrics.loss},
      {"speed", "step_seconds", "time of the step", metrics.step_time.count / ms_in_second},
      {"speed", "data_seconds", "time to read the step's minibatch, beside the step before",
       metrics.data_time.count / ms_in_second},
      {"speed", "tokens_per_second", "tokens a second; of images, samples", metrics.tokens_per_s},
      {"speed", "utilisation_ratio", "share of the time that a rank works during the step", metrics.utilisation},
      {"update", "learning_rate", "of the update", metrics.learning_rate},
      {"update", "steps", "updates so far", static_cast<double>(metrics.step), {}, /*only_rises=*/true},
      {"update",
       "tokens",
       "tokens that the updates so far have seen; of images, samples",
       static_cast<double>(metrics.tokens),
       {},
       /*only_rises=*/true},
  };
  if (!metrics.skipped) figures.push_back({"update", "gradient_norm", "before clipping", metrics.gradient_norm});
  if (metrics.held_out_loss)
    figures.push_back({"loss", "held_out_loss", "mean over held-out samples", *metrics.held_out_loss});
  if (metrics.planned_step_time)
    figures.push_back({"speed", "planned_step_seconds", "the step that the plan predicts",
                       metrics.planned_step_time->count / ms_in_second});
  add_by_rank(figures, "peak_memory_bytes", "the most that a rank has held so far", metrics.peak_memory);
  add_by_rank(figures, "peak_activation_bytes", "the most that a rank kept for microbatches under way in the step",
              metrics.peak_activations);
  return figures;
}

Monitor::Monitor(MonitorSettings settings) : settings_(std::move(settings)) {
  if (!settings_.prometheus.empty())
    server_ = std::make_unique<FigureServer>(parse_listen_address(settings_.prometheus));
}

TrainObserver Monitor::watching(TrainObserver observer) {
  TrainObserver both = observer;
  both.on_start = [this, told = observer.on_start](const TrainStart& start) {
    if (!settings_.tensorboard_folder.empty()) events_.emplace(settings_.tensorboard_folder, start.first_step);
    if (told) told(start);
  };
  both.on_step = [this, told = std::move(observer.on_step)](const StepMetrics& metrics) {
    step(metrics);
    if (told) told(metrics);
  };
  return both;
}

void Monitor::step(const StepMetrics& metrics) {
  if (!events_ && !server_) return;
  const std::vector<Figure> figures = figures_of(metrics);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  if (events_) events_->add(metrics.step, std::chrono::duration<double>(now).count(), figures);
  if (server_) server_->show(figures);
}

}  // namespace penstock
