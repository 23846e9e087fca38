#include "run/run_checkpoints.h"

#include <utility>

#include "penstock/base/thread.h"

namespace penstock {

BackgroundWrite::BackgroundWrite(CheckpointPart& part, const std::vector<SavedStage>& stages)
    : thread_(start_thread([this, &part, &stages] {
        try {
          for (const SavedStage& saved : stages) part.write_stage(saved.stage, saved.tensors, saved.shard);
        } catch (...) {
          failure_ = std::current_exception();
        }
        done_.store(true, std::memory_order_release);
      })) {}

BackgroundWrite::~BackgroundWrite() {
  if (thread_.joinable()) thread_.join();
}

void BackgroundWrite::wait() {
  thread_.join();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

RunCheckpoints::RunCheckpoints(RunCheckpointsSettings settings, const Clock& clock)
    : settings_(std::move(settings)), clock_(clock) {}

void RunCheckpoints::begin(Pipeline& pipeline, std::int64_t step, std::string notes) {
  finish(pipeline);
  begun_ = clock_.now();
  step_ = step;
  notes_ = std::move(notes);
  if (settings_.leads) {
    writer_.emplace(settings_.folder, step);
    static_cast<void>(pipeline.exchange(writer_->temporary_folder().string()));
    part_ = &writer_->own_part();
  } else {
    own_part_.emplace(pipeline.exchange({}).front());
    part_ = &*own_part_;
  }
  if (settings_.background) {
    pipeline.copy_state(copies_);
    write_.emplace(*part_, copies_);
  } else {
    pipeline.save(*part_);
  }
  times_.paused = times_.paused + (clock_.now() - begun_);
}

void RunCheckpoints::finish(Pipeline& pipeline) {
  if (!under_way()) return;
  const Milliseconds start = clock_.now();
  finish_parts(pipeline);
  saved_step_ = step_;
  const Milliseconds end = clock_.now();
  ++times_.checkpoints;
  times_.paused = times_.paused + (end - start);
  times_.written = times_.written + (end - begun_);
}

void RunCheckpoints::finish_parts(Pipeline& pipeline) {
  if (write_) write_->wait();
  write_.reset();
  const std::vector<std::string> parts = pipeline.exchange(settings_.leads ? std::string() : part_->contents());
  part_ = nullptr;
  own_part_.reset();
  if (!settings_.leads) return;
  for (std::size_t process = 1; process < parts.size(); ++process) writer_->add(parts[process]);
  writer_->commit(notes_);
  writer_.reset();
  keep_newest_checkpoints(settings_.folder, settings_.keep);
}

}  // namespace penstock
