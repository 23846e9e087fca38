#include "penstock/train/train.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "penstock/base/clock.h"
#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/limits.h"
#include "penstock/base/listening.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/data/bigram.h"
#include "penstock/data/dataset.h"
#include "penstock/data/order.h"
#include "penstock/plan/plan_file.h"
#include "penstock/report/comparison.h"
#include "penstock/report/trace.h"
#include "penstock/sim/measured_cost.h"
#include "penstock/sim/simulate.h"
#include "penstock/train/planning.h"
#include "penstock/transport/c10d.h"

#include "train/agreement.h"
#include "train/drift.h"
#include "train/model.h"
#include "train/run_checkpoints.h"
#include "train/run_folder.h"
#include "train/setting_words.h"
#include "train/worker.h"

namespace penstock {
namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// What a rank holds, or all ranks of a device.
struct HeldMemory {
  std::string name;
  std::set<int> ranks;
  Bytes peak;
};

// A device other than the host knows only what all hold that are on it.
std::vector<HeldMemory> peaks_by_place(const std::vector<StageSummary>& stages, bool one_process) {
  std::map<std::string, std::set<int>> on_device;
  for (const StageSummary& stage : stages) on_device[stage.device].insert(stage.rank);
  std::map<int, HeldMemory> by_first_rank;
  for (const StageSummary& stage : stages) {
    const std::set<int>& together = on_device[stage.device];
    const bool shared = one_process && stage.device != "cpu" && together.size() > 1;
    HeldMemory place{fmt::format("rank {}", stage.rank), {stage.rank}, stage.peak_memory};
    if (shared) place = {stage.device, together, stage.peak_memory};
    by_first_rank[*place.ranks.begin()] = std::move(place);
  }
  std::vector<HeldMemory> places;
  places.reserve(by_first_rank.size());
  for (auto& [rank, place] : by_first_rank) places.push_back(std::move(place));
  return places;
}

std::string planned_text(const PlanPrediction& planned, Milliseconds step, double measured_utilisation,
                         const std::vector<StageSummary>& stages, bool one_process) {
  const auto percent_off = [](double measured, double expected) { return 100 * (measured / expected - 1); };
  std::string text = fmt::format(
      "the plan and what was measured (medians):\n  a step     {} planned, {} measured ({:+.1f} %)\n"
      "  utilisation {:.1f} % planned, {:.1f} % measured",
      to_string(planned.step), to_string(step), percent_off(step.count, planned.step.count), 100 * planned.utilisation,
      100 * measured_utilisation);
  if (planned.memory.empty()) return text;
  for (const HeldMemory& place : peaks_by_place(stages, one_process)) {
    Bytes expected;
    // The first replica stands for all.
    for (const int rank : place.ranks)
      expected += planned.memory[static_cast<std::size_t>(rank) % planned.memory.size()];
    text += fmt::format("\n  peak memory of {:<8} {} planned, {} measured ({:+.1f} %)", place.name, to_string(expected),
                        to_string(place.peak),
                        percent_off(static_cast<double>(place.peak.count),
                                    static_cast<double>(std::max<std::int64_t>(expected.count, 1))));
  }
  return text;
}

// What checkpoints cost the steps. Empty where none was written between steps.
std::string saving_text(const SavingTimes& times, const std::vector<double>& step_ms,
                        const std::vector<double>& beside_writes) {
  if (times.checkpoints == 0 || step_ms.empty()) return {};
  const double total = std::accumulate(step_ms.begin(), step_ms.end(), times.paused.count);
  std::string text = fmt::format(
      "{}: training waited {} for each ({:.1f} % of its time), written in {}", counted(times.checkpoints, "checkpoint"),
      to_string(Milliseconds{times.paused.count / times.checkpoints}), 100 * times.paused.count / total,
      to_string(Milliseconds{times.written.count / times.checkpoints}));
  if (!beside_writes.empty())
    text += fmt::format("; a step beside a write took {:+.1f} %", 100 * (median(beside_writes) / median(step_ms) - 1));
  return text;
}

DataSettings data_settings(const TrainSettings& settings) {
  return {{settings.data.begin(), settings.data.end()}, settings.data_kind, settings.context, settings.held_out};
}

void check_ranks(const TrainSettings& settings, const Schedule& schedule) {
  if (settings.ranks == 0 || settings.ranks == schedule.ranks()) return;
  throw bad_input(fmt::format("--ranks {} for {} with --stages {}, which has {}", settings.ranks, settings.schedule,
                              settings.stages, schedule.ranks()),
                  "the ranks of the schedule", "leave --ranks out, or change --stages");
}

// Empty where no rank's memory was counted.
std::vector<Bytes> peak_activations_of(const Timeline& timeline) {
  std::vector<Bytes> peaks;
  bool counted = false;
  for (std::size_t rank = 0; rank < timeline.memory.size(); ++rank) {
    counted = counted || !timeline.memory[rank].empty();
    peaks.push_back(peak_bytes(timeline, RankId{static_cast<std::int32_t>(rank)}));
  }
  return counted ? peaks : std::vector<Bytes>{};
}

int asked_to_stop(const TrainObserver& observer) { return observer.stop_signal ? observer.stop_signal() : 0; }

// The run while it goes on: what `train` would else hand around from step to step.
class Run {
 public:
  Run(const TrainSettings& settings, const TrainObserver& observer, ProcessGroup* group)
      : settings_(settings),
        observer_(observer),
        group_(group),
        // The first process has perhaps begun to write.
        folder_(settings.out, settings.resume || !leads()),
        checkpoints_({folder_.checkpoints(), leads(), !settings.wait_for_checkpoints, settings.keep}, clock_) {}

  TrainResult operator()();

 private:
  void note(const std::string& text) const {
    if (observer_.on_note) observer_.on_note(text);
  }
  // Whether this process writes the folder and speaks for the run.
  [[nodiscard]] bool leads() const { return group_ == nullptr || group_->process() == 0; }
  [[nodiscard]] std::optional<CheckpointReader> find_checkpoint();
  [[nodiscard]] std::optional<CheckpointId> latest_checkpoint();
  void set_damaged_aside() const;
  void announce(const Network& network);
  // The signal that ends the run after it, 0 where it goes on.
  int train_step(std::int64_t step);
  void take_plan(const PipelineSettings& pipeline);
  void keep_timeline(Timeline timeline);
  void write_timelines(TrainResult& result) const;
  void save(std::int64_t step, bool last);
  [[nodiscard]] std::vector<Microbatch> cut_for_training(const Batch& batch) const;
  [[nodiscard]] double held_out_loss();
  [[nodiscard]] bool due(std::int64_t done, std::int64_t every) const { return every > 0 && done % every == 0; }
  [[nodiscard]] TrainResult finish(int stop_signal);

  TrainSettings settings_;
  const TrainObserver& observer_;
  ProcessGroup* group_;  // null: the only process
  RunFolder folder_;
  SteadyClock clock_;
  RunCheckpoints checkpoints_;
  Data data_;
  std::optional<Pipeline> pipeline_;
  LearningRate learning_rate_;
  std::vector<SkippedCheckpoint> damaged_;  // newer than the one that the run goes on from
  std::int64_t first_step_ = 0;
  std::vector<std::string> early_notes_;  // told once nothing can be refused any more
  std::int64_t tokens_ = 0;               // that all updates have seen
  std::vector<double> step_ms_;
  std::vector<double> ms_beside_writes_;  // of the steps during which a checkpoint was written
  std::vector<double> utilisations_;
  std::optional<Plan> plan_;  // where the run follows one
  std::optional<DriftWatch> drift_;
  double last_loss_ = std::numeric_limits<double>::quiet_NaN();
  std::vector<Timeline> timelines_;  // of the last steps, the last one at the end
  std::optional<VerifiedSchedule> schedule_;
};

TrainResult Run::operator()() {
  // Everything that can be refused is refused before anything is written.
  if (group_ != nullptr) check_same_settings(*group_, settings_);
  data_ = open_data(data_settings(settings_));
  if (group_ != nullptr) check_same_data(*group_, data_);
  Network network = make_network(settings_, data_.description);
  PipelineSettings pipeline_settings = make_pipeline_settings(settings_, data_.description, network);
  schedule_ = make_run_schedule(settings_);
  check_ranks(settings_, schedule_->get());
  if (!settings_.plan.empty()) take_plan(pipeline_settings);
  const std::string recomputed = words_of_layers(pipeline_settings.recompute);
  const std::optional<CheckpointReader> checkpoint = find_checkpoint();
  std::int64_t updates = 0;
  if (checkpoint) {
    const CheckpointNotes notes = parse_notes(checkpoint->metadata());
    check_same_network(notes, settings_, data_.description);
    first_step_ = checkpoint->step();
    checkpoints_.resumed_from(first_step_);
    updates = notes.updates;
  }
  const Network described = network;
  pipeline_.emplace(std::move(network), *schedule_, std::move(pipeline_settings), group_);
  if (checkpoint) pipeline_->load(*checkpoint, updates);
  settings_.threads_per_rank = pipeline_->threads_per_rank();
  learning_rate_ = {settings_.learning_rate, settings_.warmup, settings_.steps, settings_.final_learning_rate};
  if (leads()) {
    folder_.open(settings_, first_step_);
    tokens_ = folder_.tokens();
  }
  for (const std::string& text : early_notes_) note(text);
  if (leads()) {
    set_damaged_aside();
    // What a killed run was deleting.
    if (checkpoint) keep_newest_checkpoints(folder_.checkpoints(), settings_.keep);
  }
  announce(described);
  if (settings_.recompute == "selected") note("--recompute selected: " + recomputed);
  pipeline_->begin_accounting();
  std::int64_t step = first_step_;
  int stop_signal = 0;
  while (step < settings_.steps && stop_signal == 0) {
    stop_signal = train_step(step++);
    const bool last = step == settings_.steps || stop_signal != 0;
    if (due(step, settings_.checkpoint_every) || last) save(step, last);
  }
  return finish(stop_signal);
}

std::optional<CheckpointReader> Run::find_checkpoint() {
  if (!settings_.resume) return std::nullopt;
  std::optional<CheckpointId> latest;
  if (leads()) latest = latest_checkpoint();
  if (group_ != nullptr) latest = agreed_checkpoint(*group_, latest);
  if (!latest) {
    early_notes_.emplace_back("there is no whole checkpoint yet: training starts from the beginning");
    return std::nullopt;
  }
  early_notes_.push_back(fmt::format("resuming after step {} from {}", latest->step, latest->path.string()));
  return std::optional<CheckpointReader>(std::in_place, *latest);
}

std::optional<CheckpointId> Run::latest_checkpoint() {
  const auto latest = latest_whole_checkpoint(folder_.checkpoints(), &damaged_);
  for (const SkippedCheckpoint& checkpoint : damaged_)
    early_notes_.push_back(fmt::format("skipped {}: {}", checkpoint.path.string(), checkpoint.reason));
  if (latest || damaged_.empty() || settings_.from_the_beginning) return latest;
  std::vector<std::string> names;
  names.reserve(damaged_.size());
  for (const SkippedCheckpoint& checkpoint : damaged_) names.push_back(checkpoint.path.filename().string());
  const std::string& reason = damaged_.front().reason;
  throw bad_input(
      fmt::format("{} has no whole checkpoint, only {}: {}", settings_.out,
                  shortened(fmt::format("{}", fmt::join(names, ", ")), 300), reason.substr(0, reason.find(';'))),
      "a checkpoint to go on from",
      "restore the files, or begin anew with --from-the-beginning, which keeps these under other names");
}

// The steps that they are of will be made again, and saved under their names.
void Run::set_damaged_aside() const {
  for (const SkippedCheckpoint& checkpoint : damaged_)
    note(fmt::format("kept {} as {}", checkpoint.path.string(),
                     set_aside_checkpoint(checkpoint.path).filename().string()));
}

void Run::announce(const Network& network) {
  const std::vector<StageReport> stages = pipeline_->report();
  if (!observer_.on_start) return;
  TrainStart start;
  start.layers = static_cast<std::int64_t>(network.layers.size());
  for (std::size_t index = 0; index < stages.size(); ++index)
    // Of several holders of a stage one counts.
    if (index == 0 || stages[index].stage != stages[index - 1].stage) start.parameters += stages[index].parameters;
  start.train_samples = data_.train->size();
  start.held_out_samples = data_.held_out ? data_.held_out->size() : 0;
  start.ranks = pipeline_->ranks();
  start.replicas = settings_.replicas;
  start.processes = group_ != nullptr ? group_->processes() : 1;
  start.threads_per_rank = pipeline_->threads_per_rank();
  start.first_step = first_step_;
  start.steps = settings_.steps;
  observer_.on_start(start);
}

std::vector<Microbatch> Run::cut_for_training(const Batch& batch) const {
  return split_minibatch({{{batch.input}}, {{batch.target}}}, settings_.microbatches);
}

int Run::train_step(std::int64_t step) {
  const Batch batch = data_.train->batch(samples_of_step(data_.train->size(), step, settings_.batch, settings_.seed));
  const double rate = learning_rate_.at(step);
  const Milliseconds start = clock_.now();
  UpdateSettings update{step, rate};
  update.stop_signal = asked_to_stop(observer_);
  update.saving = checkpoints_.writing();
  const bool beside_a_write = checkpoints_.under_way();
  StepResult result = pipeline_->step(cut_for_training(batch), update);
  StepMetrics metrics;
  metrics.step = step + 1;
  metrics.loss = result.loss;
  metrics.step_time = clock_.now() - start;
  metrics.tokens_per_s = result.weight * 1000 / metrics.step_time.count;
  tokens_ += std::llround(result.weight);
  metrics.tokens = tokens_;
  metrics.peak_memory = pipeline_->peak_memory();
  metrics.peak_activations = peak_activations_of(result.timeline);
  metrics.utilisation = utilisation(result.timeline);
  metrics.learning_rate = rate;
  metrics.gradient_norm = result.gradient_norm;
  metrics.skipped = result.skipped;
  utilisations_.push_back(metrics.utilisation);
  if (plan_) {
    metrics.planned_step_time = plan_->prediction.step;
    metrics.planned_utilisation = plan_->prediction.utilisation;
  }
  if (due(metrics.step, settings_.eval_every) && metrics.step != settings_.steps && data_.held_out)
    metrics.held_out_loss = held_out_loss();
  last_loss_ = result.loss;
  if (drift_ && leads())
    if (const auto drifted = drift_->observe(result.timeline)) note(*drifted);
  keep_timeline(std::move(result.timeline));
  step_ms_.push_back(metrics.step_time.count);
  if (beside_a_write) ms_beside_writes_.push_back(metrics.step_time.count);
  if (beside_a_write && !result.saving) checkpoints_.finish(*pipeline_);
  if (leads()) folder_.append(metrics);
  if (observer_.on_step) observer_.on_step(metrics);
  return result.stop_signal;
}

// A plan that flags have changed expects another run than this one.
void Run::take_plan(const PipelineSettings& pipeline) {
  const Plan plan = load_plan(settings_.plan);
  const Cut cut = pipeline.cut.empty() ? uniform_cut(plan.layers, settings_.stages) : pipeline.cut;
  if (plan.replicas == settings_.replicas && plan.microbatches * plan.replicas == settings_.microbatches &&
      plan.batch == settings_.batch && plan.cut == cut)
    plan_ = plan;
  if (plan_ && settings_.drift > 0) drift_.emplace(plan, settings_.drift);
  if (!plan_)
    early_notes_.push_back(fmt::format(
        "the run does not follow {}: another cut, batch or number of microbatches or replicas; nothing is predicted",
        settings_.plan));
}

// Enough of them for medians where a prediction is wanted.
void Run::keep_timeline(Timeline timeline) {
  const std::size_t most = settings_.timeline ? 9 : 1;
  if (timelines_.size() == most) timelines_.erase(timelines_.begin());
  timelines_.push_back(std::move(timeline));
}

void Run::write_timelines(TrainResult& result) const {
  const Timeline& last = timelines_.back();
  write_file_atomically(folder_.timeline(), to_chrome_trace(last));
  if (!settings_.timeline) return;
  // What is predicted must not have seen what it is compared with; a run of one step has nothing else.
  const std::vector<Timeline> before(timelines_.begin(), timelines_.end() - (timelines_.size() > 1 ? 1 : 0));
  const Timeline predicted = simulate(*schedule_, measured_cost(before, schedule_->get()));
  const std::string title =
      fmt::format("{}, {} microbatches: predicted over measured", settings_.schedule, settings_.microbatches);
  write_file_atomically(std::filesystem::path(folder_.timeline()).replace_extension("svg"),
                        comparison_svg(predicted, last, {.title = title}));
  write_file_atomically(std::filesystem::path(folder_.timeline()).replace_extension("html"),
                        comparison_html(predicted, last, {.title = title}));
  result.prediction = comparison_text(predicted, last);
}

void Run::save(std::int64_t step, bool last) {
  // The metrics of a step are on the disk before the checkpoint that has seen it.
  if (leads()) folder_.sync_metrics();
  checkpoints_.begin(*pipeline_, step, to_json({settings_, data_.description, step}));
  if (last || settings_.wait_for_checkpoints) checkpoints_.finish(*pipeline_);
}

double Run::held_out_loss() {
  return mean_loss(*pipeline_, *data_.held_out, evenly_spaced_samples(data_.held_out->size(), settings_.eval_samples),
                   settings_.batch);
}

TrainResult Run::finish(int stop_signal) {
  TrainResult result;
  result.step = checkpoints_.saved_step();
  result.stop_signal = stop_signal;
  result.loss = last_loss_;
  result.median_step_time = {median(step_ms_)};
  const double tokens = data_.description.kind == DataKind::Images
                            ? static_cast<double>(settings_.batch)
                            : static_cast<double>(settings_.batch * settings_.context);
  if (result.median_step_time.count > 0) result.tokens_per_s = tokens * 1000 / result.median_step_time.count;
  for (const StageReport& stage : pipeline_->report()) {
    const std::string device = settings_.devices.empty()
                                   ? "cpu"
                                   : settings_.devices[static_cast<std::size_t>(stage.rank) % settings_.devices.size()];
    result.stages.push_back({stage.stage, stage.rank, device, stage.first_layer, stage.first_layer + stage.layers - 1,
                             stage.parameters, stage.busy_share, stage.peak_memory, stage.sent});
  }
  result.links = pipeline_->links();
  if (leads() && !result.links.empty()) write_file_atomically(folder_.links(), to_json(result.links));
  result.speaks = leads();
  if (leads() && !timelines_.empty()) write_timelines(result);
  if (plan_ && !step_ms_.empty())
    result.planned = planned_text(plan_->prediction, result.median_step_time, median(utilisations_), result.stages,
                                  group_ == nullptr);
  result.saving = saving_text(checkpoints_.times(), step_ms_, ms_beside_writes_);
  result.held_out_loss = std::numeric_limits<double>::quiet_NaN();
  if (stop_signal != 0 || !data_.held_out) return result;
  result.held_out_loss = held_out_loss();
  if (data_.description.kind == DataKind::Text) result.bigram_loss = bigram_loss(data_);
  return result;
}

}  // namespace

double mean_loss(Pipeline& pipeline, const Dataset& dataset, const std::vector<std::int64_t>& samples,
                 std::int64_t batch) {
  // Several minibatches are in flight at once; only their inputs and targets are held together.
  constexpr std::size_t in_flight = 8;
  double sum = 0;
  double weight = 0;
  std::vector<std::vector<Microbatch>> minibatches;
  const auto evaluate = [&] {
    for (const Loss& loss : pipeline.evaluate(std::exchange(minibatches, {}))) {
      sum += loss.sum.item<double>();
      weight += loss.weight;
    }
  };
  for (std::size_t first = 0; first < samples.size(); first += static_cast<std::size_t>(batch)) {
    const std::size_t count = std::min(static_cast<std::size_t>(batch), samples.size() - first);
    const Batch part = dataset.batch(std::span(samples).subspan(first, count));
    minibatches.push_back(pipeline.cut(part.input, part.target));
    if (minibatches.size() == in_flight) evaluate();
  }
  if (!minibatches.empty()) evaluate();
  return sum / weight;
}

namespace {

TrainResult run(const TrainSettings& settings, const TrainObserver& observer, ProcessGroup* group) {
  try {
    return Run(settings, observer, group)();
  } catch (const c10::Error& error) {
    // The pipeline has words of its own: what is left is a minibatch that is too large to be cut.
    const std::string reason = error.what_without_backtrace();
    throw run_failed(reason.substr(0, reason.find('\n')), "a minibatch that libtorch can hold",
                     "where memory ran out, lower --batch or --context");
  }
}

}  // namespace

TrainResult train(const TrainSettings& settings, const TrainObserver& observer,
                  const std::optional<ProcessSettings>& processes) {
  check_settings(settings);
  if (!settings.listen.empty()) check_own_address("--listen", settings.listen);
  const bool alone = !processes || processes->processes == 1;
  check_limits(settings, alone ? 1 : processes->processes);
  if (is_automatic(settings)) {
    if (!alone)
      throw bad_input(fmt::format("auto in one of {} processes", processes->processes),
                      "a plan, where several processes share a run",
                      "write one with penstock plan -o plan.toml and give it with --plan");
    return run(choose_automatic(settings, observer.on_note), observer, nullptr);
  }
  if (alone) return run(settings, observer, nullptr);
  ProcessSettings own = *processes;
  own.ranks = make_run_schedule(settings)->ranks();
  own.peer_timeout = Milliseconds{settings.peer_timeout * 1000};
  own.join_timeout = Milliseconds{settings.join_timeout * 1000};
  own.own_address = settings.listen;
  const auto [first, end] = ranks_of_process(own.process, own.processes, own.ranks);
  for (std::size_t rank = first.index(); rank < end.index() && !settings.devices.empty(); ++rank)
    own.devices.push_back(settings.devices[rank % settings.devices.size()]);
  own.asked_to_stop = [&observer] { return asked_to_stop(observer) != 0; };
  std::optional<ProcessGroup> joined;
  try {
    joined.emplace(own);
  } catch (const Error& error) {
    const int signal = asked_to_stop(observer);
    if (signal == 0 || error.kind() == ErrorKind::BadInput) throw;
    TrainResult result;
    result.step = -1;
    result.stop_signal = signal;
    result.speaks = own.process == 0;
    return result;
  }
  if (observer.on_joined) observer.on_joined();
  ProcessGroup& group = *joined;
  try {
    return run(settings, observer, &group);
  } catch (const std::exception& error) {
    // Whatever ends one process ends all, in its words.
    group.abort(error.what());
    throw;
  }
}

void check_limits(const TrainSettings& settings, int processes) {
  // Data, metrics, the lock, standard streams; and of each stage a file of a checkpoint that is read while another is
  // written.
  constexpr int own = 24;
  need_descriptors(own + 2 * settings.stages * settings.replicas + ProcessGroup::descriptors_for(processes),
                   processes == 1
                       ? counted(settings.stages, "stage")
                       : fmt::format("{} in {}", counted(settings.stages, "stage"), counted(processes, "process")));
}

int threads_of_ranks(const TrainSettings& settings) { return default_threads(make_run_schedule(settings)->ranks()); }

RunLayout layout_of_fewer(const TrainSettings& settings, int processes_before, int processes) {
  const int ranks = make_run_schedule(settings)->ranks();
  const int stages_per_rank = settings.stages * settings.replicas / ranks;
  const int most = std::max(ranks * processes / processes_before, processes);
  TrainSettings fewer = settings;
  // Some schedules want an even number of ranks.
  for (fewer.replicas = settings.replicas; fewer.replicas >= 1; --fewer.replicas) {
    for (int wanted = most; wanted >= processes; --wanted) {
      if (wanted % fewer.replicas != 0) continue;
      fewer.stages = wanted / fewer.replicas * stages_per_rank;
      try {
        static_cast<void>(make_run_schedule(fewer));
        return {fewer.stages, fewer.replicas};
      } catch (const Error&) {
        continue;
      }
    }
  }
  throw bad_input(fmt::format("no {} on {} ranks of {}", settings.schedule, processes,
                              counted(settings.microbatches, "microbatch")),
                  "a schedule for the processes that are left", "choose another --schedule for --elastic");
}

TrainSettings settings_of_run(const std::filesystem::path& out) {
  std::error_code ignored;
  if (!std::filesystem::exists(RunFolder::config(out), ignored))
    throw bad_input(fmt::format("{} holds no run", out.string()), "a folder that penstock train has written",
                    "check the path");
  TrainSettings settings;
  apply_toml(settings, RunFolder::config(out));
  settings.out = out.string();
  return settings;
}

}  // namespace penstock
