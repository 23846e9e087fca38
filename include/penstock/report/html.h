/// \file
/// Timelines as a web page of its own: everything is in the one file, and nothing is loaded from anywhere.
#pragma once

#include <string>
#include <vector>

#include "penstock/timeline/timeline.h"

namespace penstock {

/// A timeline and what to call it: "simulated", "measured", "1f1b".
struct NamedTimeline {
  std::string name;
  Timeline timeline;
};

struct HtmlOptions {
  std::string title = "penstock";
  std::string time_unit = "ms";  ///< what times count: "ms", or another word where they are units
};

/// A page with one drawing over one time axis, in which the timelines stand below each other: a row a rank, a strip of
/// memory below it where memory was counted; scroll to zoom, drag to move, hover for times. Below it the figures of
/// each rank.
[[nodiscard]] std::string to_html(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options = {});

}  // namespace penstock
