/// \file
/// A timeline as a trace for chrome://tracing and ui.perfetto.dev (the "Trace Event Format", JSON object form).
#pragma once

#include <string>
#include <string_view>

#include "penstock/timeline/timeline.h"

namespace penstock {

/// One trace: a track a rank, a slice an event, named as in the text form of a schedule (`2F0`), its category the kind
/// of action ("forward", "backward", "input_backward", "weight_backward", "communication"), its arguments stage and
/// microbatch, and a counter track for each rank that has memory samples. Times are in microseconds, kept to the
/// nanosecond.
/// \param process what the group of tracks is called, such as "measured" or "simulated".
[[nodiscard]] std::string to_chrome_trace(const Timeline& timeline, std::string_view process = "penstock");

}  // namespace penstock
