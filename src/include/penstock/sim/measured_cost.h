/// \file
/// The way back from what was measured to a cost, so that a run can predict its own next step and other schedules'.
#pragma once

#include <vector>

#include "penstock/cost/cost.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// The cost of each stage and of the links as medians over all steps, so that a step that was disturbed does not count.
/// - Times: of a stage's `F`, `I` and `W`. A stage that has only `B` gets half of it as `I` and half as `W`; that of a
///   stage without backward is 0.
/// - Link, the same for all: `default_link.latency` is from the end of a send to the end of its receive, of those
///   receives that began before the send had ended and so waited for nothing else. 0 without such a receive, bandwidth
///   unlimited, boundaries of no bytes: the latency holds the time of messages of this size.
/// - Memory, where a timeline has a sample at the end of each event of a rank, in the order of the events: the
///   activation is by how much more a rank holds after the `F` of a microbatch than before it, the receive of its input
///   and the send of its output counted in, since boundaries have no bytes of their own here; the share for `W` is what
///   is left of that after the `I` with its receive and its send, and may be above 1. The rank's first event, which no
///   sample stands before, does not count. Without memory activations are 0 and shares 1. What a rank holds all the
///   time (parameters, gradients, the optimizer's state) cannot be seen in differences and is 0.
///
/// \param steps of `schedule`, with or without sends and receives, each rank's clock the same.
/// \throws Error (BadInput) if there is no step, if the events are not those of the schedule's ranks, stages and
/// microbatches, if a stage has no `F`, and if a rank's samples are not as many as its events.
[[nodiscard]] Cost measured_cost(const std::vector<Timeline>& steps, const Schedule& schedule);

}  // namespace penstock
