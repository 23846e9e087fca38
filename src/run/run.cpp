#include "run/run.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <limits>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/index.h"
#include "penstock/base/quantile.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/data/bigram.h"
#include "penstock/data/order.h"
#include "penstock/plan/plan.h"
#include "penstock/report/comparison.h"
#include "penstock/report/report.h"
#include "penstock/sim/measured_cost.h"
#include "penstock/sim/simulate.h"

#include "run/agreement.h"
#include "run/model.h"
#include "run/published.h"
#include "run/run_texts.h"

namespace penstock {
namespace {

void check_ranks(const Layout& layout, const Schedule& schedule) {
  if (layout.ranks.are_the_schedules() || layout.ranks.count() == schedule.ranks()) return;
  throw bad_input(fmt::format("`ranks` = {} for {} with `stages` = {}, which has {}", layout.ranks.count(),
                              to_text(layout.schedule), layout.stages, schedule.ranks()),
                  "the ranks of the schedule", "leave `ranks` out, or change `stages`");
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

}  // namespace

TrainResult Run::operator()() {
  // Everything that can be refused is refused before anything is written.
  if (group_ != nullptr) check_same_settings(*group_, settings_);
  job_ = make_job_(settings_);
  if (group_ != nullptr) check_same_data(*group_, job_);
  PipelineSettings pipeline_settings = make_pipeline_settings(settings_, job_);
  schedule_ = schedule_of(settings_.layout);
  check_ranks(settings_.layout, schedule_->get());
  pipeline_settings.threads_per_rank =
      threads_of(settings_.layout, ranks_here_ > 0 ? ranks_here_ : schedule_->get().ranks());
  if (!settings_.planning.plan.empty()) take_plan(pipeline_settings);
  const std::string recomputed = to_text(Recompute::of(pipeline_settings.recompute));
  const std::optional<CheckpointReader> checkpoint = find_checkpoint();
  std::int64_t updates = 0;
  if (checkpoint) {
    const CheckpointNotes notes = parse_notes(checkpoint->metadata(), resumed_from_);
    check_same_network(notes, settings_, job_.data);
    if (notes.shape != job_.shape)
      throw bad_input(fmt::format("`model` is {}, the checkpoint's is {}", job_.shape, notes.shape),
                      "the model that the run began with", "drop `model` or choose another `out`");
    first_step_ = checkpoint->step();
    step_ = first_step_;
    checkpoints_.resumed_from(first_step_);
    updates = notes.updates;
  }
  if (!checkpoint && job_.weights_have_gone)
    throw bad_input(fmt::format("{} has no weights any more to begin with", settings_.model.kind.folder()),
                    "the folder that the run began with", "put it back, or name it with `model`");
  pipeline_.emplace(job_.network, *schedule_, std::move(pipeline_settings), group_);
  if (checkpoint) pipeline_->load(*checkpoint, updates);
  settings_.layout.threads_per_rank = pipeline_->threads_per_rank();
  order_.emplace(train_sources(job_), settings_.training.seed);
  learning_rate_ = {settings_.training.learning_rate, settings_.training.warmup, settings_.training.steps,
                    settings_.training.final_learning_rate};
  if (leads()) {
    folder_.open(settings_, first_step_);
    tokens_ = folder_.tokens();
    if (settings_.model.kind == ModelKind::Published) folder_.keep_model(folder_of_model(settings_));
    if (plan_) folder_.keep_plan(*plan_, settings_.planning.plan);
    folder_.tell(first_step_, "start", start_text());
  }
  for (const std::string& text : early_notes_) note(text);
  if (leads()) {
    set_damaged_aside();
    // What a killed run was deleting.
    if (checkpoint) keep_newest_checkpoints(folder_.checkpoints(), settings_.output.keep);
  }
  announce();
  if (job_.files && !job_.files->train_sources.empty()) note(mixture_text(settings_, job_.files->train_sources));
  if (settings_.layout.recompute.kind() == Recompute::Selected) note("layers that are run again: " + recomputed);
  pipeline_->begin_accounting();
  const int stop_signal = train_all();
  // A request during the last step comes too late for it, and is told all the same.
  return finish(stop_signal != 0 ? stop_signal : agreed_stop());
}

void Run::note(const std::string& text, const char* kind) {
  if (observer_.on_note) observer_.on_note(text);
  if (leads()) folder_.tell(step_, kind, text);
}

std::string Run::start_text() const {
  const Layout& layout = settings_.layout;
  return fmt::format("{} on {}, {}, {}, {}{}", to_text(layout.schedule), counted(pipeline_->ranks(), "rank"),
                     counted(group_ != nullptr ? group_->processes() : 1, "process"), counted(layout.stages, "stage"),
                     counted(layout.microbatches.count(), "microbatch"),
                     layout.replicas > 1 ? fmt::format(", {} replicas", layout.replicas) : "");
}

int Run::train_all() {
  // The data of the next is read while the others are computed.
  const std::ptrdiff_t most_in_flight = settings_.training.steps_in_flight;
  std::int64_t step = first_step_;
  int stop_signal = 0;
  while (step < settings_.training.steps && stop_signal == 0) {
    submit_step(step++);
    // Whoever wants the weights of one step waits until no other is on its way.
    const bool end = step == settings_.training.steps;
    const bool wanted = end || due(step, settings_.output.checkpoint_every) || due(step, settings_.output.eval_every);
    while (!in_flight_.empty() && (wanted || stop_signal != 0 || std::ssize(in_flight_) >= most_in_flight)) {
      const int asked = conclude_step();
      if (stop_signal == 0) stop_signal = asked;
    }
    if (due(step, settings_.output.checkpoint_every) || end || stop_signal != 0) save(step, end || stop_signal != 0);
  }
  return stop_signal;
}

std::optional<CheckpointReader> Run::find_checkpoint() {
  if (!settings_.output.resume) return std::nullopt;
  std::optional<CheckpointId> latest;
  if (leads()) latest = latest_checkpoint();
  if (group_ != nullptr) latest = agreed_checkpoint(*group_, latest);
  if (!latest) {
    early_notes_.emplace_back("there is no whole checkpoint yet: training starts from the beginning");
    return std::nullopt;
  }
  resumed_from_ = latest->path;
  early_notes_.push_back(fmt::format("resuming after step {} from {}", latest->step, resumed_from_.string()));
  return std::optional<CheckpointReader>(std::in_place, *latest);
}

std::optional<CheckpointId> Run::latest_checkpoint() {
  const auto latest = latest_whole_checkpoint(folder_.checkpoints(), &damaged_);
  for (const SkippedCheckpoint& checkpoint : damaged_)
    early_notes_.push_back(fmt::format("skipped {}: {}", checkpoint.path.string(), checkpoint.reason));
  if (latest || damaged_.empty() || settings_.output.from_the_beginning) return latest;
  std::vector<std::string> names;
  names.reserve(damaged_.size());
  for (const SkippedCheckpoint& checkpoint : damaged_) names.push_back(checkpoint.path.filename().string());
  const std::string& reason = damaged_.front().reason;
  throw bad_input(
      fmt::format("{} has no whole checkpoint, only {}: {}", settings_.output.folder,
                  shortened(fmt::format("{}", fmt::join(names, ", ")), 300), reason.substr(0, reason.find(';'))),
      "a checkpoint to go on from",
      "restore the files, or begin anew with `from_the_beginning`, which keeps these under other names");
}

// The steps that they are of will be made again, and saved under their names.
void Run::set_damaged_aside() {
  for (const SkippedCheckpoint& checkpoint : damaged_)
    note(fmt::format("kept {} as {}", checkpoint.path.string(),
                     set_aside_checkpoint(checkpoint.path).filename().string()));
}

void Run::announce() {
  const std::vector<StageReport> stages = pipeline_->report();
  if (!observer_.on_start) return;
  TrainStart start;
  start.layers = std::ssize(job_.network.layers);
  for (std::size_t index = 0; index < stages.size(); ++index)
    // If a stage has several holders, one of them counts.
    if (index == 0 || stages[index].stage != stages[index - 1].stage) start.parameters += stages[index].parameters;
  start.train_samples = job_.train->size();
  start.held_out_samples = job_.held_out ? job_.held_out->size() : 0;
  start.ranks = pipeline_->ranks();
  start.ranks_here = ranks_here_ > 0 ? ranks_here_ : start.ranks;
  start.replicas = settings_.layout.replicas;
  start.processes = group_ != nullptr ? group_->processes() : 1;
  start.threads_per_rank = pipeline_->threads_per_rank();
  start.first_step = first_step_;
  start.steps = settings_.training.steps;
  observer_.on_start(start);
}

void Run::submit_step(std::int64_t step) {
  const Milliseconds begun = clock_.now();
  const Minibatch minibatch = job_.train->minibatch(order_->of_step(step, settings_.training.batch));
  const Milliseconds read = clock_.now() - begun;
  const double rate = job_.learning_rate ? job_.learning_rate(step) : learning_rate_.at(step);
  UpdateSettings update{step, rate};
  update.stop_signal = asked_to_stop(observer_);
  update.saving = checkpoints_.writing();
  in_flight_.push_back({step,
                        pipeline_->submit(split_minibatch(minibatch, settings_.layout.microbatches.count()), update),
                        rate, begun, read, checkpoints_.under_way()});
}

int Run::conclude_step() {
  SubmittedStep submitted = std::move(in_flight_.front());
  in_flight_.pop_front();
  StepResult result = submitted.handle.wait();
  StepMetrics metrics = metrics_of(submitted, result);
  // It may take longer than whoever stops the run waits.
  if (due(metrics.step, settings_.output.eval_every) && metrics.step != settings_.training.steps && job_.held_out &&
      result.stop_signal == 0) {
    const Milliseconds begun = clock_.now();
    const double loss = held_out_loss(result.stop_signal);
    metrics.evaluation_time = clock_.now() - begun;
    if (result.stop_signal == 0) metrics.held_out_loss = loss;
  }
  last_loss_ = result.loss;
  if (drift_ && leads())
    if (const auto drifted = drift_->observe(result.timeline)) note(*drifted, "drift");
  keep_timeline(std::move(result.timeline));
  step_ms_.push_back(metrics.step_time.count);
  if (submitted.beside_a_write) ms_beside_writes_.push_back(metrics.step_time.count);
  if (submitted.beside_a_write && !result.saving) checkpoints_.finish(*pipeline_);
  if (leads()) folder_.append(metrics);
  if (observer_.on_step) observer_.on_step(metrics);
  return result.stop_signal;
}

StepMetrics Run::metrics_of(const SubmittedStep& submitted, const StepResult& result) {
  StepMetrics metrics;
  metrics.step = submitted.step + 1;
  metrics.loss = result.loss;
  // A step that was begun before the last one had ended takes what it adds to that.
  const Milliseconds now = clock_.now();
  metrics.step_time = now - std::max(submitted.begun, last_concluded_);
  last_concluded_ = now;
  metrics.data_time = submitted.data_time;
  metrics.tokens_per_s = result.weight * 1000 / metrics.step_time.count;
  tokens_ += std::llround(result.weight);
  metrics.tokens = tokens_;
  metrics.peak_memory = result.peak_memory;
  metrics.peak_activations = peak_activations_of(result.timeline);
  metrics.utilisation = utilisation(result.timeline);
  add_rank_times(metrics, result.timeline);
  metrics.checkpoint_time = checkpoints_.times().paused - std::exchange(paused_, checkpoints_.times().paused);
  step_ = metrics.step;
  metrics.learning_rate = submitted.learning_rate;
  metrics.gradient_norm = result.gradient_norm;
  metrics.skipped = result.skipped;
  metrics.updated_first = result.updated_first;
  updated_first_ += result.updated_first ? 1 : 0;
  metrics.taken_back = result.taken_back;
  taken_back_ += result.taken_back ? 1 : 0;
  utilisations_.push_back(metrics.utilisation);
  if (plan_) {
    metrics.planned_step_time = plan_->prediction.step;
    metrics.planned_utilisation = plan_->prediction.utilisation;
  }
  return metrics;
}

void Run::add_rank_times(StepMetrics& metrics, const Timeline& timeline) {
  // Only the first process knows the ranks of all.
  if (!leads()) return;
  const std::size_t ranks = timeline.ranks.size();
  std::vector<Milliseconds> waited(ranks);
  for (const LinkUse& use : pipeline_->links()) waited.at(as_index(use.to)) += use.transfer - use.hidden;
  waited_for_links_.resize(ranks);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const RankId id{static_cast<std::int32_t>(rank)};
    metrics.rank_busy.push_back(busy_time(timeline, id));
    metrics.rank_span.push_back(span(timeline, id));
    metrics.rank_link.push_back(waited[rank] - waited_for_links_[rank]);
  }
  waited_for_links_ = std::move(waited);
}

// A plan that flags have changed expects another run than this one.
void Run::take_plan(const PipelineSettings& pipeline) {
  const Plan plan = load_plan(settings_.planning.plan);
  if (plan.replicas == settings_.layout.replicas &&
      plan.microbatches * plan.replicas == settings_.layout.microbatches.count() &&
      plan.batch == settings_.training.batch && plan.cut == pipeline.cut)
    plan_ = plan;
  if (plan_ && settings_.planning.drift > 0) drift_.emplace(plan, settings_.planning.drift);
  if (!plan_)
    early_notes_.push_back(fmt::format(
        "the run does not follow {}: another cut, batch or number of microbatches or replicas; nothing is predicted",
        settings_.planning.plan));
}

// Enough of them for medians where a prediction is wanted.
void Run::keep_timeline(Timeline timeline) {
  const std::size_t most = settings_.output.timeline ? 9 : 1;
  if (timelines_.size() == most) timelines_.erase(timelines_.begin());
  timelines_.push_back(std::move(timeline));
}

void Run::write_last_step() const {
  if (!timelines_.empty()) write_file_atomically(folder_.timeline(), to_chrome_trace(timelines_.back()));
  const std::vector<LinkUse> links = pipeline_->links();
  if (!links.empty()) write_file_atomically(folder_.links(), to_json(links));
}

void Run::write_timelines(TrainResult& result) const {
  const Timeline& last = timelines_.back();
  if (!settings_.output.timeline) return;
  // What is predicted must not have seen what it is compared with; a run of one step has nothing else.
  const std::vector<Timeline> before(timelines_.begin(), timelines_.end() - (timelines_.size() > 1 ? 1 : 0));
  const Timeline predicted = simulate(*schedule_, measured_cost(before, schedule_->get()));
  const std::string title = fmt::format("{}, {} microbatches: predicted over measured",
                                        to_text(settings_.layout.schedule), settings_.layout.microbatches.count());
  write_file_atomically(std::filesystem::path(folder_.timeline()).replace_extension("svg"),
                        comparison_svg(predicted, last, {.title = title}));
  write_file_atomically(std::filesystem::path(folder_.timeline()).replace_extension("html"),
                        comparison_html(predicted, last, {.title = title}));
  result.prediction = comparison_text(predicted, last);
}

void Run::save(std::int64_t step, bool last) {
  // The metrics of a step are on the disk before the checkpoint that has seen it.
  if (leads()) folder_.sync_metrics();
  checkpoints_.begin(*pipeline_, step, to_json({settings_, job_.data, step, job_.shape}));
  if (last || settings_.output.wait_for_checkpoints) checkpoints_.finish(*pipeline_);
  if (leads()) write_last_step();
}

// The signal of whoever was asked to stop; every process says at the same place whether it was.
int Run::agreed_stop() {
  int agreed = 0;
  for (const std::string& asked : pipeline_->exchange(std::to_string(asked_to_stop(observer_)))) {
    const int stop_signal = std::stoi(asked);
    if (agreed == 0 || (stop_signal != 0 && stop_signal < agreed)) agreed = stop_signal;
  }
  return agreed;
}

// \param stop_signal where it is not 0 afterwards, the loss is not there.
double Run::held_out_loss(int& stop_signal) {
  return mean_loss(*pipeline_, *job_.held_out,
                   evenly_spaced_samples(held_out_sources(job_), settings_.output.eval_samples), settings_, [&] {
                     stop_signal = agreed_stop();
                     return stop_signal != 0;
                   });
}

TrainResult Run::finish(int stop_signal) {
  TrainResult result;
  result.step = checkpoints_.saved_step();
  result.stop_signal = stop_signal;
  result.loss = last_loss_;
  result.steps_made = std::ssize(step_ms_);
  result.updated_first = updated_first_;
  result.taken_back = taken_back_;
  if (!step_ms_.empty()) result.median_step_time = {quantile(step_ms_, 0.5)};
  const bool tokens = job_.data.kind != DataKind::Images && job_.data.kind != DataKind::Own;
  const auto counted_in_a_step = static_cast<double>(settings_.training.batch * (tokens ? settings_.data.context : 1));
  if (result.median_step_time.count > 0) result.tokens_per_s = counted_in_a_step * 1000 / result.median_step_time.count;
  for (const StageReport& stage : pipeline_->report()) {
    const std::string device =
        settings_.layout.devices.empty()
            ? "cpu"
            : settings_.layout.devices[static_cast<std::size_t>(stage.rank) % settings_.layout.devices.size()];
    result.stages.push_back({stage.stage, stage.rank, device, stage.first_layer, stage.first_layer + stage.layers - 1,
                             stage.parameters, stage.busy_share, stage.peak_memory, stage.sent});
  }
  result.links = pipeline_->links();
  result.is_first_process = leads();
  if (leads() && !timelines_.empty()) write_timelines(result);
  if (plan_ && !step_ms_.empty())
    result.planned = planned_text(plan_->prediction, result.median_step_time, quantile(utilisations_, 0.5),
                                  result.stages, group_ == nullptr);
  result.saving = saving_text(checkpoints_.times(), step_ms_, ms_beside_writes_);
  result.held_out_loss = std::numeric_limits<double>::quiet_NaN();
  if (stop_signal == 0 && job_.held_out) {
    result.held_out_loss = held_out_loss(result.stop_signal);
    const bool is_mixture = job_.files && !job_.files->train_sources.empty();
    if (result.stop_signal == 0 && job_.data.kind == DataKind::Text && !is_mixture)
      result.bigram_loss = bigram_loss(*job_.files);
  }
  if (leads())
    folder_.tell_end(
        step_, result.stop_signal == 0 ? "all steps are made" : fmt::format("stopped by signal {}", result.stop_signal),
        result.held_out_loss);
  return result;
}

double mean_loss(Pipeline& pipeline, const Samples& samples, const std::vector<std::int64_t>& numbers,
                 const TrainSettings& settings, const std::function<bool()>& stop) {
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
  const auto batch = static_cast<std::size_t>(settings.training.batch);
  for (std::size_t first = 0; first < numbers.size(); first += batch) {
    const std::size_t count = std::min(batch, numbers.size() - first);
    const std::size_t parts = std::min(count, static_cast<std::size_t>(settings.layout.microbatches.count()));
    minibatches.push_back(
        split_minibatch(samples.minibatch(std::span(numbers).subspan(first, count)), static_cast<int>(parts)));
    const bool last = first + count == numbers.size();
    if (minibatches.size() < in_flight && !last) continue;
    if (stop && stop()) return std::numeric_limits<double>::quiet_NaN();
    evaluate();
  }
  return sum / weight;
}

}  // namespace penstock
