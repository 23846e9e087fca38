#include "penstock/schedule/steps.h"

#include <cstdint>
#include <fmt/format.h>
#include <limits>

#include "penstock/base/error.h"

namespace penstock {

Schedule in_a_row(const Schedule& step, int steps) {
  const std::int64_t microbatches = std::int64_t{step.microbatches} * steps;
  if (steps < 1 || microbatches > std::numeric_limits<std::int32_t>::max())
    throw bad_input(fmt::format("{} of {}", counted(steps, "step"), counted(step.microbatches, "microbatch")),
                    "at least one step, and fewer than 2^31 microbatches in all", "change `steps`");
  Schedule all = step;
  all.microbatches = static_cast<int>(microbatches);
  for (std::size_t rank = 0; rank < step.actions.size(); ++rank) {
    auto& actions = all.actions[rank];
    actions.reserve(step.actions[rank].size() * static_cast<std::size_t>(steps));
    for (std::int32_t next = 1; next < steps; ++next)
      for (Action action : step.actions[rank]) {
        if (action.microbatch.value >= 0) action.microbatch.value += next * step.microbatches;
        actions.push_back(action);
      }
  }
  return all;
}

}  // namespace penstock
