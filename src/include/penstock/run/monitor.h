/// \file
/// Shows a run to TensorBoard and Prometheus while it goes on.
///
///     penstock::Monitor monitor({.tensorboard_folder = "runs/first/tensorboard", .prometheus = "9464"});
///     const penstock::TrainResult result = penstock::train(settings, monitor.watching(progress.observer()));
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/monitoring/event_file.h"
#include "penstock/monitoring/figure.h"
#include "penstock/monitoring/figure_server.h"
#include "penstock/run/train.h"

namespace penstock {

/// To whom a run is shown.
struct MonitorSettings {
  std::filesystem::path tensorboard_folder;  ///< of the event file; empty: none is written
  std::string prometheus;                    ///< as `parse_listen_address` takes it; empty: nobody is answered

  friend bool operator==(const MonitorSettings&, const MonitorSettings&) = default;
};

/// The figures of a step: those that it has, each name's ranks together.
[[nodiscard]] std::vector<Figure> figures_of(const StepMetrics& metrics);

/// Belongs to the thread that calls `train`, in the process that writes the folder.
class Monitor {
 public:
  /// \throws Error (BadInput) where Prometheus's port cannot be had.
  explicit Monitor(MonitorSettings settings);

  /// The observer with this beside it; this must stay where it is as long as it is used. A run that goes on drops the
  /// events of the steps that it makes again.
  [[nodiscard]] TrainObserver watching(TrainObserver observer);

 private:
  void step(const StepMetrics& metrics);

  MonitorSettings settings_;
  std::optional<EventFile> events_;  // from the start of the run on
  std::unique_ptr<FigureServer> server_;
};

}  // namespace penstock
