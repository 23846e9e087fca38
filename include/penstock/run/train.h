/// \file
/// The whole job: from settings to a trained network in a folder, what can be done with such a folder, plans for a
/// network and its data on this machine, and what a program has to do with its processes, its signals and its terminal.
/// Free of libtorch; trainer.h does the same with a network of one's own.
///
///     penstock::Progress progress;
///     penstock::TrainObserver observer = progress.observer();
///     penstock::watch_stop_signals();
///     observer.stop_signal = penstock::stop_signal;
///     penstock::train(settings, observer, penstock::process_of_environment());
///     progress.finish();
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"
#include "penstock/plan/plan.h"
#include "penstock/report/report.h"
#include "penstock/settings/settings.h"
#include "penstock/timeline/timeline.h"
#include "penstock/transport/c10d.h"

namespace penstock {

/// A line of `metrics.jsonl`, and what a progress bar shows.
struct StepMetrics {
  std::int64_t step = 0;    ///< updates so far, from 1
  double loss = 0;          ///< mean over the minibatch before the update; for text in nats per byte
  Milliseconds step_time;   ///< from the end of the step before, or from its own beginning if nothing was under way
  Milliseconds data_time;   ///< reading the minibatch, beside the step before
  double tokens_per_s = 0;  ///< of images: samples
  double utilisation = 0;   ///< of the ranks during the step's schedule
  std::int64_t tokens = 0;  ///< that all updates so far have seen; of images: samples
  double learning_rate = 0;
  double gradient_norm = 0;
  /// By rank, for those of this process: the most that it has held so far, as `StageSummary::peak_memory`.
  std::vector<Bytes> peak_memory;
  /// By rank, for all: the most that it kept for microbatches under way during the step. Empty where nobody counts it.
  std::vector<Bytes> peak_activations;
  std::vector<Milliseconds> rank_busy;  ///< by rank, for all: in passes
  std::vector<Milliseconds> rank_span;  ///< the same: from the rank's first action to its last
  std::vector<Milliseconds> rank_link;  ///< the same: it stood in receives while their messages were on the way
  Milliseconds checkpoint_time;  ///< that training waited for saving since the step before; no part of `step_time`
  Milliseconds evaluation_time;  ///< of the held-out loss; no part of `step_time`
  bool updated_first = false;    ///< made before the norm was known, as `StepResult::updated_first`
  bool taken_back = false;       ///< updated before the norm was known, and once more after it
  bool skipped = false;          ///< fp16: the gradient was not finite, and nothing was updated
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
  int ranks_here = 0;  ///< of them, those on this machine, which share its cores
  int replicas = 1;
  int processes = 1;
  int threads_per_rank = 0;
  std::int64_t first_step = 0;  ///< updates that a checkpoint has already seen
  std::int64_t steps = 0;
};

/// How it ended.
struct TrainResult {
  std::int64_t step = 0;     ///< updates of the network in the last checkpoint; -1: stopped before the first
  int stop_signal = 0;       ///< the signal, to any process, that ended the run; 0: none; the last update is saved
  double loss = 0;           ///< of the last step
  double held_out_loss = 0;  ///< NaN where nothing is held out
  std::optional<double> bigram_loss;  ///< text: of a byte bigram model fitted to the same training split, nats per byte
  Milliseconds median_step_time;
  std::int64_t steps_made = 0;     ///< by this start of the run
  std::int64_t updated_first = 0;  ///< of them: made before the norm was known, though it could say otherwise
  std::int64_t taken_back = 0;     ///< of those: made once more, or not at all, after it
  double tokens_per_s = 0;         ///< median
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
/// a step), events.jsonl (starts, notes, ends), checkpoints/, and with each checkpoint and at the end timeline.json
/// (the last step, for Perfetto). A run on several ranks also writes links.json, and one that follows a plan plan.toml.
/// With `timeline` it ends with timeline.svg and timeline.html, in which the last step stands below what the simulator
/// predicts from the costs that were measured in the steps before.
/// \param processes this process's part where several share the run: they are given the same settings and data, which
/// is checked, and a folder that all of them see; the first one writes everything there but the others' stages. `ranks`
/// is the schedule's, and need not be set.
/// \throws Error (BadInput) before anything is written; (RunFailed) with the last checkpoint whole.
TrainResult train(const TrainSettings& settings, const TrainObserver& observer,
                  const std::optional<ProcessSettings>& processes = std::nullopt);

/// Makes sure that this process can open the files of such a run and hold the links to the others.
/// \throws Error (RunFailed) that names the limit and what is needed.
void check_limits(const TrainSettings& settings, int processes);

/// The threads of each rank: those of the layout, or where it has 0 the cores of this machine divided by the ranks that
/// live on it.
[[nodiscard]] int threads_of(const Layout& layout, int ranks_here);

/// The settings that the run in `out` was started with. \throws Error (BadInput) where there is no run.
[[nodiscard]] TrainSettings settings_of_run(const std::filesystem::path& out);

/// The settings with the layers, width, heads and tied head of the published model that they name; others as they are.
/// \throws Error (BadInput) where its config.json cannot be read, or a setting was changed from its default to
/// something else than the model's.
[[nodiscard]] TrainSettings with_published_shape(TrainSettings settings);

/// What an evaluation says of one of several sources with weights.
struct EvalSource {
  std::string path;
  double share = 0;  ///< of all weights
  std::int64_t samples = 0;
  double loss = 0;  ///< this and what follows as in `EvalResult`
  std::optional<double> perplexity = std::nullopt;
  std::optional<double> bits_per_byte = std::nullopt;
};

/// What an evaluation says; of several sources with weights, of a token that is drawn from them by these.
struct EvalResult {
  std::int64_t step = 0;     ///< of the checkpoint
  std::int64_t samples = 0;  ///< evaluated
  double loss = 0;           ///< mean; nats a token, or a sample for images
  /// For text and tokens: e to the power of the loss.
  std::optional<double> perplexity = std::nullopt;
  /// The loss of all tokens, those that end documents among them, in bits, divided by the bytes of the texts that they
  /// stand for. Nothing if the number of bytes is not known: for token files without an index that says it.
  std::optional<double> bits_per_byte = std::nullopt;
  std::vector<EvalSource> sources = {};  ///< empty where they have no weights
};

/// The loss of the last whole checkpoint in `out`, or of a published model, on `data`: all of it, or `samples` (not 0)
/// spread evenly over it; of several sources with weights ("a.bin:0.7") over each. \param field of JSON Lines, the
/// member that is the text; nothing: the one that the run was trained on. \throws Error (BadInput)
[[nodiscard]] EvalResult evaluate_run(const std::filesystem::path& out, const std::vector<std::string>& data,
                                      std::int64_t samples, const std::optional<std::string>& field = std::nullopt);

/// How text is drawn from a network.
struct SampleSettings {
  std::vector<std::string> prompts;  ///< each is continued by itself; at least one
  std::int64_t bytes = 400;          ///< of each continuation
  double temperature = 0.8;          ///< 0: always the likeliest byte
  std::int64_t top_k = 0;            ///< only so many of the likeliest; 0: all
  double top_p = 1;                  ///< only the likeliest that together have this probability, at least one; 1: all
  std::uint64_t seed = 1;            ///< of the draws of each prompt
};

/// Continues the prompts with a network of bytes, or of a published model's tokens, handing over each byte as soon as
/// it is known, with the number of its prompt. All prompts are under way together, each as a microbatch of its own:
/// their texts are those that each would have alone, to the bit. With a published model a text ends with the document,
/// and at each token that the model's generation_config.json or config.json names (`eos_token_id`). \param out a run,
/// or the folder of a published model. \throws Error (BadInput)
void sample_run(const std::filesystem::path& out, const SampleSettings& settings,
                const std::function<void(std::size_t prompt, char byte)>& on_byte);

/// What a signal does that comes a second or more after the first. What follows within a second is the same request:
/// `timeout` and supervisors send a signal to a process and to its group.
enum class Repeats {
  Ignore,  ///< for a worker, which its launcher can end
  Kill,    ///< ends the process at once; the last update is not saved
};

/// Installs the process's handlers of SIGHUP, SIGINT and SIGTERM, so that `stop_signal` tells of them, and ignores
/// SIGPIPE, so that a run does not end when the program that reads its standard output or error has ended. SIGHUP stays
/// ignored if it is, as under nohup. Call it before other threads start.
void watch_stop_signals(Repeats repeats = Repeats::Kill);

/// What `TrainObserver::stop_signal` is to be: the first signal that came since `watch_stop_signals`, 0 before. May be
/// called from any thread.
[[nodiscard]] int stop_signal();

/// An observer of a run that shows how far it is. On a terminal the bar is drawn anew up to ten times a second;
/// elsewhere there is a line every five seconds. Belongs to the thread that calls `train`.
class Progress {
 public:
  /// Writes text at once.
  using Write = std::function<void(std::string_view)>;

  /// On the standard output or error, or a file. \param stream must stay open as long as this is used.
  explicit Progress(std::FILE* stream = stdout);
  /// \param terminal whether what is written is seen on a terminal of the standard output's width.
  Progress(Write write, bool terminal);

  /// Calls `start`, `step` and `note` of this, which must stay where it is as long as the observer is used.
  [[nodiscard]] TrainObserver observer();

  /// Says what the run is, and counts the time that is left from here.
  void start(const TrainStart& start);
  /// Draws the bar or a line, if it is time for one, and a line for an evaluation.
  void step(const StepMetrics& metrics);
  /// A line of its own above the bar.
  void note(const std::string& text);
  /// Ends the bar's line. What is written next begins a line.
  void finish();

 private:
  [[nodiscard]] std::string bar(const StepMetrics& metrics) const;

  Write write_;
  bool terminal_;
  SteadyClock clock_;
  std::int64_t first_step_ = 0;
  std::int64_t steps_ = 0;
  Milliseconds started_;
  Milliseconds last_shown_;
  bool bar_shown_ = false;
};

/// The table at the end, a line for each stage.
[[nodiscard]] std::string stage_table(const TrainResult& result);

/// Costs of layers and the file that holds them.
struct MeasuredCosts {
  LayerCosts costs;
  std::filesystem::path file;
  bool reused = false;  ///< nothing was measured: the file already had the costs of this model, machine and these sizes
  int threads_per_rank = 0;  ///< that it was measured with; 0 on devices
};

/// Takes one line for people.
using Note = std::function<void(const std::string&)>;

/// The costs of the network that `settings` describe, on `request.ranks` threads or devices at once, at the microbatch
/// sizes that the request may come to. They are kept in `settings.cost`, or where that is empty in a file of the user's
/// cache (`XDG_CACHE_HOME`, or `~/.cache`) whose name stands for model, machine and sizes; and taken from there when it
/// has them, unless `settings.remeasure` is set or the machine was busy then (`noisy_spread`). `note` is told how
/// old they are and how well they are known.
/// \throws Error (BadInput) where model and data do not fit, as `make_plans` for ranks and batch, and where
/// `settings.cost` holds the costs of another model or machine, which the message names.
[[nodiscard]] MeasuredCosts measured_costs(const TrainSettings& settings, const PlanRequest& request, const Note& note);

/// The best plan on some number of ranks, and the costs that it was made from.
struct PlanOnRanks {
  Plan plan;
  MeasuredCosts measured;
};

/// The best plan of the request on each of several numbers of ranks, the fastest first. Where the machine was too busy
/// to say which that is (a median known to no better than `incomparable_spread`), the most ranks come first, which use
/// all that was offered, and `note` is told so. Ranks that are threads share
/// all cores of the machine: each has an equal part of them as its threads. The costs of each number are kept as
/// `measured_costs` keeps them, of those that `settings.cost` names each in a file of its own beside it
/// ("cost-ranks-2.json"). \param ranks empty: the powers of two up to the number of devices, or of cores, and that
/// number; at most one for each layer. Numbers for which nothing fits are left out. \throws Error as `measured_costs`,
/// and the last one's error where nothing fits on any number.
[[nodiscard]] std::vector<PlanOnRanks> plans_by_ranks(const TrainSettings& settings, const PlanRequest& request,
                                                      const std::vector<int>& ranks, const Note& note);

/// The best plan on one rank, with all cores of the machine or one device: what a pipeline has to be faster than.
/// Nothing where the network does not fit on it. \param request for its batch and memory. \throws Error as
/// `measured_costs`.
[[nodiscard]] std::optional<PlanOnRanks> plan_on_one_rank(const TrainSettings& settings, const PlanRequest& request,
                                                          const Note& note);

/// Runs a plan of those settings for two steps to warm up and `steps` more. \throws Error as `train`.
[[nodiscard]] MeasuredPlan try_plan(const TrainSettings& settings, const Plan& plan, int steps);

/// Chooses what `settings` leave to a plan: costs are measured or found, the best plan is written to `plan.toml` in
/// `settings.out`, and the settings that are returned follow it. What is not automatic stays as it is.
/// \throws Error (BadInput) where nothing fits, or `settings.out` cannot take a run.
[[nodiscard]] TrainSettings choose_automatic(const TrainSettings& settings, const Note& note);

}  // namespace penstock
