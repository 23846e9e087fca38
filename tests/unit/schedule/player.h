/// \file
/// A second, plain way to time a compute schedule, to hold the generators and the simulator against.
#pragma once

#include <vector>

#include "penstock/schedule/verify.h"

namespace penstock {

struct UnitTimes {
  int forward = 1;
  int input_backward = 1;
  int weight_backward = 1;
  int whole_backward = 2;
};

/// What a rank does when each begins its actions as early as it can; links are free and an overlapped pair takes the
/// sum of its times, begins when both can begin and gives both results at its end.
struct Played {
  int makespan = 0;
  std::vector<int> busy;
  std::vector<int> waiting;  ///< between a rank's first action and its last

  [[nodiscard]] int most_waiting() const;
};

[[nodiscard]] Played play(const Schedule& schedule, const UnitTimes& times = {});

}  // namespace penstock
