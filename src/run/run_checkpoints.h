// The checkpoints of a run: begun between two steps, written behind the next ones, and committed when every process has
// written its part.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/pipeline/pipeline.h"

namespace penstock {

// Writes stages on a thread of its own.
class BackgroundWrite {
 public:
  // Both must outlive it and stay as they are until `wait` returns.
  BackgroundWrite(CheckpointPart& part, const std::vector<SavedStage>& stages);
  BackgroundWrite(const BackgroundWrite&) = delete;
  BackgroundWrite& operator=(const BackgroundWrite&) = delete;
  BackgroundWrite(BackgroundWrite&&) = delete;
  BackgroundWrite& operator=(BackgroundWrite&&) = delete;
  ~BackgroundWrite();

  [[nodiscard]] bool done() const { return done_.load(std::memory_order_acquire); }
  // Throws what the writing threw.
  void wait();

 private:
  std::atomic<bool> done_ = false;
  std::exception_ptr failure_;  // written before `done_`
  std::thread thread_;          // last: it sees everything above
};

struct RunCheckpointsSettings {
  std::filesystem::path folder;
  bool leads = true;       // whether this process commits what all have written
  bool background = true;  // copy, and write the copies behind the next steps; otherwise training waits
  int keep = 3;
};

// What saving took from training.
struct SavingTimes {
  int checkpoints = 0;
  Milliseconds paused;   // training waited: copies, commits and deletions, and writes that had to be waited for
  Milliseconds written;  // from the first copy to the commit

  friend bool operator==(const SavingTimes&, const SavingTimes&) = default;
};

// All processes of a run make the same calls in the same order.
class RunCheckpoints {
 public:
  // `clock` must outlive it.
  RunCheckpoints(RunCheckpointsSettings settings, const Clock& clock);
  RunCheckpoints(const RunCheckpoints&) = delete;
  RunCheckpoints& operator=(const RunCheckpoints&) = delete;
  RunCheckpoints(RunCheckpoints&&) = delete;
  RunCheckpoints& operator=(RunCheckpoints&&) = delete;
  ~RunCheckpoints() = default;

  // Begins a checkpoint of the pipeline as it is now. Finishes the one before, if it is still under way.
  void begin(Pipeline& pipeline, std::int64_t step, std::string notes);
  // Whether one was begun and not finished; the same in all processes.
  [[nodiscard]] bool under_way() const { return part_ != nullptr; }
  // Whether this process's part of it is still being written.
  [[nodiscard]] bool writing() const { return write_ && !write_->done(); }
  // Makes what is under way a checkpoint; waits for its parts.
  void finish(Pipeline& pipeline);

  // The step of the last whole checkpoint; -1 before the first.
  [[nodiscard]] std::int64_t saved_step() const { return saved_step_; }
  void resumed_from(std::int64_t step) { saved_step_ = step; }
  [[nodiscard]] const SavingTimes& times() const { return times_; }

 private:
  void finish_parts(Pipeline& pipeline);

  const RunCheckpointsSettings settings_;
  const Clock& clock_;
  std::int64_t saved_step_ = -1;
  SavingTimes times_;

  // What belongs to the one under way.
  std::int64_t step_ = 0;
  Milliseconds begun_;
  std::string notes_;
  std::vector<SavedStage> copies_;          // kept, so that the next one need not allocate
  std::optional<CheckpointWriter> writer_;  // where this process leads
  std::optional<CheckpointPart> own_part_;  // where it does not
  CheckpointPart* part_ = nullptr;          // the one of them that is there
  std::optional<BackgroundWrite> write_;    // last: it is joined before what it writes goes
};

}  // namespace penstock
