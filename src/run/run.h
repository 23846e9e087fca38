// A training run from its first step to its result: what `train` would else hand around from step to step.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/data/order.h"
#include "penstock/optim/optimizer.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/plan/drift.h"
#include "penstock/plan/plan.h"
#include "penstock/run/train.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"
#include "penstock/transport/c10d.h"

#include "run/job.h"
#include "run/run_checkpoints.h"
#include "run/run_folder.h"

namespace penstock {

[[nodiscard]] inline int asked_to_stop(const TrainObserver& observer) {
  return observer.stop_signal ? observer.stop_signal() : 0;
}

class Run {
 public:
  // \param make_job what opens the data and makes the network; called when all processes have the same settings.
  // \param group null: the only process. \param ranks_here of all, those on this machine; 0: all.
  Run(const TrainSettings& settings, const TrainObserver& observer, ProcessGroup* group,
      const std::function<Job(const TrainSettings&)>& make_job, int ranks_here)
      : settings_(settings),
        observer_(observer),
        group_(group),
        make_job_(make_job),
        ranks_here_(ranks_here),
        // The first process has perhaps begun to write.
        folder_(settings.output.folder, settings.output.resume || !leads()),
        checkpoints_({folder_.checkpoints(), leads(), !settings.output.wait_for_checkpoints, settings.output.keep},
                     clock_) {}

  TrainResult operator()();

 private:
  // \param kind as events.jsonl has it.
  void note(const std::string& text, const char* kind = "note");
  // Whether this process writes the folder: it is the first, or the only one.
  [[nodiscard]] bool leads() const { return group_ == nullptr || group_->process() == 0; }
  [[nodiscard]] std::optional<CheckpointReader> find_checkpoint();
  [[nodiscard]] std::optional<CheckpointId> latest_checkpoint();
  void set_damaged_aside();
  void announce();
  [[nodiscard]] std::string start_text() const;
  // A step that the ranks have been given.
  struct SubmittedStep {
    std::int64_t step = 0;  // from 0
    StepHandle handle;
    double learning_rate = 0;
    Milliseconds begun;  // when its data began to be read
    Milliseconds data_time;
    bool beside_a_write = false;
  };

  // Gives the ranks all steps, and takes their results. The signal that ended the run, 0 if none did.
  int train_all();
  void submit_step(std::int64_t step);
  // Takes the result of the first step in flight. Returns the signal that ends the run, 0 if it goes on.
  int conclude_step();
  [[nodiscard]] StepMetrics metrics_of(const SubmittedStep& submitted, const StepResult& result);
  // Fills in what each rank did.
  void add_rank_times(StepMetrics& metrics, const Timeline& timeline);
  // The last step and what went over the links so far.
  void write_last_step() const;
  void take_plan(const PipelineSettings& pipeline);
  void keep_timeline(Timeline timeline);
  void write_timelines(TrainResult& result) const;
  void save(std::int64_t step, bool last);
  [[nodiscard]] int agreed_stop();
  [[nodiscard]] double held_out_loss(int& stop_signal);
  [[nodiscard]] bool due(std::int64_t done, std::int64_t every) const { return every > 0 && done % every == 0; }
  [[nodiscard]] TrainResult finish(int stop_signal);

  TrainSettings settings_;
  const TrainObserver& observer_;
  ProcessGroup* group_;  // null: the only process
  const std::function<Job(const TrainSettings&)>& make_job_;
  int ranks_here_;
  RunFolder folder_;
  SteadyClock clock_;
  RunCheckpoints checkpoints_;
  Job job_;
  std::optional<Pipeline> pipeline_;
  LearningRate learning_rate_;
  std::optional<SampleOrder> order_;
  std::vector<SkippedCheckpoint> damaged_;  // newer than the one that the run goes on from
  std::filesystem::path resumed_from_;      // empty where it begins
  std::int64_t first_step_ = 0;
  std::vector<std::string> early_notes_;  // told once nothing can be refused any more
  std::int64_t tokens_ = 0;               // that all updates have seen
  std::deque<SubmittedStep> in_flight_;
  Milliseconds last_concluded_;                 // when the last result was there
  std::vector<Milliseconds> waited_for_links_;  // by rank, in all steps
  Milliseconds paused_;                         // by checkpoints, as the last line knew it
  std::int64_t step_ = 0;                       // of the last line
  std::int64_t updated_first_ = 0;
  std::int64_t taken_back_ = 0;
  std::vector<double> step_ms_;
  std::vector<double> ms_beside_writes_;  // of the steps during which a checkpoint was written
  std::vector<double> utilisations_;
  std::optional<Plan> plan_;  // where the run follows one
  std::optional<DriftWatch> drift_;
  double last_loss_ = std::numeric_limits<double>::quiet_NaN();
  std::vector<Timeline> timelines_;  // of the last steps, the last one at the end
  std::optional<VerifiedSchedule> schedule_;
};

}  // namespace penstock
