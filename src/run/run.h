// A training run from its first step to its result: what `train` would else hand around from step to step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/clock.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/optim/optimizer.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/plan/plan.h"
#include "penstock/run/train.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"
#include "penstock/transport/c10d.h"

#include "run/drift.h"
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
  // \param group null: the only process.
  Run(const TrainSettings& settings, const TrainObserver& observer, ProcessGroup* group,
      const std::function<Job(const TrainSettings&)>& make_job)
      : settings_(settings),
        observer_(observer),
        group_(group),
        make_job_(make_job),
        // The first process has perhaps begun to write.
        folder_(settings.out, settings.resume || !leads()),
        checkpoints_({folder_.checkpoints(), leads(), !settings.wait_for_checkpoints, settings.keep}, clock_) {}

  TrainResult operator()();

 private:
  void note(const std::string& text) const {
    if (observer_.on_note) observer_.on_note(text);
  }
  // Whether this process writes the folder: it is the first, or the only one.
  [[nodiscard]] bool leads() const { return group_ == nullptr || group_->process() == 0; }
  [[nodiscard]] std::optional<CheckpointReader> find_checkpoint();
  [[nodiscard]] std::optional<CheckpointId> latest_checkpoint();
  void set_damaged_aside() const;
  void announce();
  // The signal that ends the run after it, 0 where it goes on.
  int train_step(std::int64_t step);
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
  RunFolder folder_;
  SteadyClock clock_;
  RunCheckpoints checkpoints_;
  Job job_;
  std::optional<Pipeline> pipeline_;
  LearningRate learning_rate_;
  std::vector<SkippedCheckpoint> damaged_;  // newer than the one that the run goes on from
  std::filesystem::path resumed_from_;      // empty where it begins
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

}  // namespace penstock
