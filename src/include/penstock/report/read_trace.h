/// \file
/// A run's timeline.json, read back.
#pragma once

#include <string_view>

#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// A measured step, and the schedule that it followed.
struct MeasuredStep {
  Timeline timeline;  ///< with sends and receives; with memory where each event has a sample
  Schedule schedule;  ///< its compute actions, not verified

  friend bool operator==(const MeasuredStep&, const MeasuredStep&) = default;
};

/// Reads the trace that `to_chrome_trace` writes. \throws Error (BadInput) for what is none, or has a rank without
/// actions.
[[nodiscard]] MeasuredStep read_chrome_trace(std::string_view trace);

}  // namespace penstock
