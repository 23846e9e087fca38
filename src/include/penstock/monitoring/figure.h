/// \file
/// A figure of a run for other programs to show.
#pragma once

#include <optional>
#include <string>

namespace penstock {

/// One number of a step. A value.
struct Figure {
  std::string group;    ///< what it is shown with: "loss", "speed", "update", "memory"
  std::string name;     ///< small letters and underscores; ends in its unit: "step_seconds", "peak_memory_bytes"
  std::string meaning;  ///< a line for people
  double value = 0;
  std::optional<int> rank = {};  ///< of which it is, where it is not the run's
  bool only_rises = false;       ///< a count of all that has happened

  friend bool operator==(const Figure&, const Figure&) = default;
};

}  // namespace penstock
