/// \file
/// A run's timeline.json, read back: what was measured, and what the simulator makes of its costs.
#pragma once

#include <string_view>

#include "penstock/timeline/timeline.h"

#include "request.h"

namespace penstock::explorer {

/// A measured step, the schedule that it followed, and its costs as medians.
struct MeasuredRun {
  Timeline measured;         ///< the compute actions, from 0 on
  PipelineRequest pipeline;  ///< to be simulated
};

/// Reads the trace that `to_chrome_trace` writes. \throws Error (BadInput) for what is none, or of no whole step.
[[nodiscard]] MeasuredRun read_measured(std::string_view trace);

}  // namespace penstock::explorer
