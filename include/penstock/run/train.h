/// \file
/// The whole job: from settings to a trained network in a folder, and what can be done with such a folder. Free of
/// libtorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/units.h"
#include "penstock/pipeline/link_use.h"
#include "penstock/settings/settings.h"
#include "penstock/transport/process_settings.h"

namespace penstock {

/// A line of `metrics.jsonl`, and what a progress bar shows.
struct StepMetrics {
  std::int64_t step = 0;  ///< updates so far, from 1
  double loss = 0;        ///< mean over the minibatch before the update; for text in nats per byte
  Milliseconds step_time;
  double tokens_per_s = 0;  ///< of images: samples
  double utilisation = 0;   ///< of the ranks during the step's schedule
  std::int64_t tokens = 0;  ///< that all updates so far have seen; of images: samples
  double learning_rate = 0;
  double gradient_norm = 0;
  /// By rank, for those of this process: the most that it has held so far, as `StageSummary::peak_memory`.
  std::vector<Bytes> peak_memory;
  /// By rank, for all: the most that it kept for microbatches under way during the step. Empty where nobody counts it.
  std::vector<Bytes> peak_activations;
  bool skipped = false;                           ///< fp16: the gradient was not finite, and nothing was updated
  std::optional<Milliseconds> planned_step_time;  ///< where the run follows a plan
  double planned_utilisation = 0;                 ///< the same
  std::optional<double> held_out_loss;            ///< on the steps that evaluate
};

/// One line of the table at the end: a stage on one of the ranks that hold it.
struct StageSummary {
  int stage = 0;
  int rank = 0;
  std::string device;
  std::int64_t first_layer = 0;
  std::int64_t last_layer = 0;
  std::int64_t parameters = 0;
  double busy_share = 0;  ///< of the rank's time within a step's schedule
  Bytes peak_memory;      ///< of the rank
  Bytes sent;             ///< in all
};

/// What is known before the first step.
struct TrainStart {
  std::int64_t layers = 0;
  std::int64_t parameters = 0;
  std::int64_t train_samples = 0;
  std::int64_t held_out_samples = 0;
  int ranks = 0;
  int replicas = 1;
  int processes = 1;
  int threads_per_rank = 0;
  std::int64_t first_step = 0;  ///< updates that a checkpoint has already seen
  std::int64_t steps = 0;
};

/// How it ended.
struct TrainResult {
  std::int64_t step = 0;              ///< updates of the network in the last checkpoint; -1: stopped before the first
  int stop_signal = 0;                ///< that ended it, of any process, 0 for none; the last update is saved
  double loss = 0;                    ///< of the last step
  double held_out_loss = 0;           ///< NaN where nothing is held out
  std::optional<double> bigram_loss;  ///< text: of a byte bigram model fitted to the same training split, nats per byte
  Milliseconds median_step_time;
  double tokens_per_s = 0;  ///< median
  std::vector<StageSummary> stages;
  std::vector<LinkUse> links;  ///< between the ranks, over all steps
  std::string saving;  ///< what checkpoints cost: the time that training waited for them, and slower steps beside
  bool is_first_process = true;  ///< or the only one: what follows, and `stages`, is of all processes
  std::string planned;     ///< where the run follows a plan: step, utilisation and peak memory as planned and measured
  std::string prediction;  ///< where `timeline` is set: figures of the last step beside those predicted from the others
};

/// Where a training run tells what it does. All are called on the caller's thread; empty ones are skipped.
struct TrainObserver {
  std::function<void()> on_joined;  ///< all processes have met; not called where there is only one
  std::function<void(const TrainStart&)> on_start;
  std::function<void(const StepMetrics&)> on_step;
  std::function<void(const std::string&)> on_note;  ///< one line each: what was skipped, resumed or saved
  /// Asked between steps, and while processes come together: the number of the signal that asks the run to stop, 1 to
  /// 31; 0: none. All processes save after their step and end with it, whichever was asked.
  std::function<int()> stop_signal;
};

/// Trains, or goes on training. Writes into `settings.out`: config.toml (the resolved settings), metrics.jsonl (a line
/// a step), checkpoints/, and at the end timeline.json (the last step, for Perfetto) and, of several ranks, links.json;
/// with `timeline` also timeline.svg and timeline.html, in which the simulator's prediction, with the costs measured in
/// the steps before, stands over it.
/// \param processes this process's part where several share the run: they are given the same settings and data, which
/// is checked, and a folder that all of them see; the first one writes everything there but the others' stages. `ranks`
/// is the schedule's, and need not be set.
/// \throws Error (BadInput) before anything is written; (RunFailed) with the last checkpoint whole.
TrainResult train(const TrainSettings& settings, const TrainObserver& observer,
                  const std::optional<ProcessSettings>& processes = std::nullopt);

/// Makes sure that this process can open the files of such a run and hold the links to the others.
/// \throws Error (RunFailed) that names the limit and what is needed.
void check_limits(const TrainSettings& settings, int processes);

/// The threads of each rank that a run on this machine has where `settings.threads_per_rank` is 0.
[[nodiscard]] int threads_of_ranks(const TrainSettings& settings);

/// How a run is laid out over its ranks.
struct RunLayout {
  int stages = 1;
  int replicas = 1;

  friend bool operator==(const RunLayout&, const RunLayout&) = default;
};

/// The layout with which `processes` go on where `processes_before` had that of `settings`: as many stages on each rank
/// and about as many ranks in each process as before, and as many replicas where the ranks divide into them, otherwise
/// fewer. \throws Error (BadInput) where the schedule has none.
[[nodiscard]] RunLayout layout_of_fewer(const TrainSettings& settings, int processes_before, int processes);

/// The settings that the run in `out` was started with. \throws Error (BadInput) where there is no run.
[[nodiscard]] TrainSettings settings_of_run(const std::filesystem::path& out);

/// What an evaluation says.
struct EvalResult {
  std::int64_t step = 0;     ///< of the checkpoint
  std::int64_t samples = 0;  ///< evaluated
  double loss = 0;           ///< mean; nats a token, or a sample for images
};

/// The loss of the last whole checkpoint in `out` on `data`, all of it, or `samples` (not 0) spread evenly over it.
/// \throws Error (BadInput)
[[nodiscard]] EvalResult evaluate_run(const std::filesystem::path& out, const std::vector<std::string>& data,
                                      std::int64_t samples);

/// How text is drawn from a network.
struct SampleSettings {
  std::string prompt;
  std::int64_t bytes = 400;
  double temperature = 0.8;  ///< 0: always the likeliest byte
  std::uint64_t seed = 1;
};

/// Continues the prompt with a network of bytes, handing over each byte as it is drawn. \throws Error (BadInput)
void sample_run(const std::filesystem::path& out, const SampleSettings& settings,
                const std::function<void(char)>& on_byte);

}  // namespace penstock
