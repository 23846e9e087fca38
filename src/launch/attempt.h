// One start of all workers, until all have ended.
#pragma once

#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/launch/launch.h"

#include "signals.h"

namespace penstock::launching {

struct AttemptEnd {
  // The first in time, or one with exit code 2; empty where all went well or left as a signal asked them to.
  std::optional<WorkerEnd> failure;
  // After a failure, how many workers were lost: those that a signal of somebody else's ended, at least one.
  int lost = 0;
  int stop_signal = 0;
  std::vector<int> killed;
};

// Returns, and throws, only when no worker is left.
[[nodiscard]] AttemptEnd run_attempt(const LaunchSettings& settings, const LaunchHooks& hooks,
                                     const LaunchAttempt& attempt, const std::vector<std::string>& command,
                                     const SignalWatch& signals, const Clock& clock);

}  // namespace penstock::launching
