// What a person sees while a network trains: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <cstdint>
#include <string>

#include "penstock/base/clock.h"
#include "penstock/train/train.h"

namespace penstock::app {

class Progress {
 public:
  Progress();

  void start(const TrainStart& start);
  void step(const StepMetrics& metrics);
  // A line of its own above the bar.
  void note(const std::string& text);
  void finish();

 private:
  [[nodiscard]] std::string bar(const StepMetrics& metrics) const;

  bool terminal_;
  SteadyClock clock_;
  std::int64_t first_step_ = 0;
  std::int64_t steps_ = 0;
  Milliseconds started_;
  Milliseconds last_shown_;
  bool bar_shown_ = false;
};

// The table at the end, a line a stage.
[[nodiscard]] std::string stage_table(const TrainResult& result);

}  // namespace penstock::app
