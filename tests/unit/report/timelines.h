/// \file
/// Timelines that the tests of the drawings share.
#pragma once

#include <cstddef>
#include <string>

#include "penstock/timeline/timeline.h"

namespace penstock {

inline Event drawn_event(ActionKind kind, int stage, int microbatch, double start, double end) {
  return {{kind, StageId{stage}, MicrobatchId{microbatch}}, {start}, {end}};
}

/// Two ranks, two stages each, F = 1, I = 1, W = 1, B = 2, with a receive that waits and a sample of memory.
inline Timeline drawn_timeline() {
  using enum ActionKind;
  Timeline timeline{
      {{drawn_event(Forward, 0, 0, 0, 1), drawn_event(Forward, 0, 1, 1, 2), drawn_event(Forward, 3, 0, 3, 4),
        drawn_event(Backward, 3, 0, 4, 6)},
       {drawn_event(ReceiveForward, 1, 0, 0, 1), drawn_event(Forward, 1, 0, 1, 2), drawn_event(Forward, 2, 0, 2, 3),
        drawn_event(InputBackward, 2, 0, 6, 7), drawn_event(WeightBackward, 2, 0, 7, 8)}}};
  timeline.memory = {{{{0}, {64}}, {{1.5}, {128}}}};
  return timeline;
}

/// How often `part` stands in `text`.
inline std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace penstock
