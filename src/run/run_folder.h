// The folder of a run: settings, metrics, checkpoints. Everything in it is whole at any moment.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "penstock/plan/plan.h"
#include "penstock/run/train.h"
#include "penstock/settings/settings.h"

namespace penstock {

class RunFolder {
 public:
  // Throws Error (BadInput) where `out` holds a run and `resume` is false, where it is a file, or where another process
  // is at work in it. Writes nothing before `open`.
  RunFolder(std::filesystem::path out, bool resume);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  RunFolder(RunFolder&&) = delete;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  // Makes the folder, keeps others out of it, writes config.toml and drops the metrics after `first_step` updates: they
  // will be made again.
  void open(const TrainSettings& resolved, std::int64_t first_step);

  // What the run had seen after those updates, as its metrics say.
  [[nodiscard]] std::int64_t tokens() const { return tokens_; }

  // Keeps what a run needs of its published model but the weights, where it is not kept yet.
  void keep_model(const std::filesystem::path& folder) const;

  // Keeps the plan that the run follows, which it has from `source`.
  void keep_plan(const Plan& plan, const std::filesystem::path& source) const;

  void append(const StepMetrics& metrics);
  // A line of events.jsonl; `kind` is start, note or drift.
  void tell(std::int64_t step, std::string_view kind, std::string_view text);
  // Its last line for this start of the run. `held_out_loss`: not a number where it was not evaluated.
  void tell_end(std::int64_t step, std::string_view text, double held_out_loss);
  // Waits until the metrics are on the disk.
  void sync_metrics();

  [[nodiscard]] std::filesystem::path checkpoints() const { return out_ / "checkpoints"; }
  [[nodiscard]] std::filesystem::path timeline() const { return out_ / "timeline.json"; }
  [[nodiscard]] std::filesystem::path links() const { return out_ / "links.json"; }

  [[nodiscard]] static std::filesystem::path config(const std::filesystem::path& out) { return out / "config.toml"; }

 private:
  std::filesystem::path out_;
  int lock_ = -1;
  int metrics_ = -1;
  int events_ = -1;
  std::int64_t tokens_ = 0;
};

}  // namespace penstock
