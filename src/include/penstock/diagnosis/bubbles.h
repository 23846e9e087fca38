/// \file
/// The lesson of pipelining, measured: how much of the time do devices work, and what does the theory say.
#pragma once

#include <string>
#include <vector>

namespace penstock {

/// What `penstock bubbles` measures.
struct BubbleSettings {
  int stages = 3;  ///< devices; a schedule with several stages for each divides the times among them
  std::vector<int> microbatches{1, 2, 4, 8, 16};
  std::vector<std::string> schedules{"naive", "gpipe", "1f1b"};
  double forward_ms = 10;   ///< that a stage waits for a microbatch in place of computing
  double backward_ms = 20;  ///< half of it for the input's gradient, half for the weights', each as long as a forward
  /// How long each stage takes beside the others, repeated where a schedule has more stages; their mean takes the times
  /// above. Example: {1, 2} makes every second stage twice as slow.
  std::vector<double> relative_times{1};
  /// Steps in a row, after two that are not counted: a rank begins its next step when it has done its part of one. 1:
  /// steps by themselves, of which the median of three counts.
  int steps = 3;
  double clip_norm = 0;  ///< largest norm of the gradient, checked after the update; 0: no check
};

/// One schedule with one number of microbatches.
struct BubbleRow {
  std::string schedule;
  int microbatches = 0;
  double theory = 0;     ///< simulated share of the time that a device works: naive 1/P, GPipe and 1F1B M/(M + P − 1)
  double measured = 0;   ///< on real threads with layers that wait
  double step_ms = 0;    ///< measured, that a step of the row takes
  double theory_ms = 0;  ///< simulated

  friend bool operator==(const BubbleRow&, const BubbleRow&) = default;
};

/// Trains a network of waiting layers, one a stage, with every schedule and number of microbatches.
/// \throws Error (BadInput)
[[nodiscard]] std::vector<BubbleRow> measure_bubbles(const BubbleSettings& settings);

}  // namespace penstock
