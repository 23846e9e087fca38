/// \file
/// Data parallel: whole pipelines side by side, each with its share of the minibatch's microbatches. They are one
/// schedule, so that what verifies, lowers, simulates, draws and runs schedules does it for them too.
#pragma once

#include <vector>

#include "penstock/schedule/schedule.h"

namespace penstock {

/// The microbatches of replica `replica`: contiguous shares in the order of the replicas, whose sizes differ by at most
/// one. \param replicas at least 1 and at most `microbatches`.
[[nodiscard]] int microbatches_of_replica(int microbatches, int replicas, int replica);

/// Schedules of the same stages as one: rank r of replica k becomes rank r plus the ranks of the replicas before, a
/// microbatch is numbered behind those of the replicas before, and every stage is held by its holders in all of them.
/// \param replicas at least one. \throws Error (BadInput) if they differ in stages or in what they are for.
[[nodiscard]] Schedule side_by_side(const std::vector<Schedule>& replicas);

}  // namespace penstock
