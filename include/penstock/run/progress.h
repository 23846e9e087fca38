/// \file
/// What a person sees while a network trains: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

#include "penstock/base/clock.h"
#include "penstock/run/train.h"

namespace penstock {

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

}  // namespace penstock
