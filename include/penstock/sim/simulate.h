/// \file
/// The simulator: plays a schedule with the costs of its stages and links on a virtual clock.
///
/// What it takes for true, so that its figures can be judged:
/// - A rank does its actions in order, one at a time, each as soon as the rank is free and the action's inputs are
/// there.
///   An overlapped pair is one action: it begins when the inputs of both are there, takes the sum of their times, and
///   has both results at its end. So count the formulas of DualPipe's authors, and so does the executor play it.
/// - `B` takes as long as `I` and `W` together.
/// - A send does not block. Each ordered pair of ranks has a link of its own that carries one message at a time, in the
/// order of
///   the sends: a message of b bytes takes it for b / bandwidth and is there `latency` later. Between two stages of one
///   rank there is no message. Receives are posted ahead, so that nothing but the link holds a message up.
/// - In a lowered schedule a message leaves at its `SEND`, in a compute schedule at the end of the action that made it.
/// - A rank holds parameters and optimizer state of its stages from the start (forward only: parameters), their
///   gradients from the end of the stage's first `B` or `W` on, and while that runs `gradient_at_peak` of them.
///   The activations of a microbatch are held from the start of its `F` to the end of its `B` or `W`, from its `I` on
///   only the share that `W` needs. A message is held by the sender until the link has it, and by the receiver while
///   the action runs that uses it, as a part of the activation from an `F` on: one that waits before counts on nobody,
///   as in the executor's count. What passes between two stages of one rank is held from the one's end to the other's
///   start. The workspace of a stage is held while an action of it runs;
///   of an overlapped pair the one does so after the other.
#pragma once

#include "penstock/cost/cost.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// What the simulator writes down beside the actions.
struct SimulationOptions {
  bool record_memory = true;  ///< fill `Timeline::memory`; off makes it faster and the timeline smaller by about half
};

/// The timeline of one step: the compute actions of every rank, from 0 on, and its memory over time. Equal input gives
/// an equal timeline, to the bit. Takes time and memory linear in the number of actions. Thread-safe.
/// \throws Error (BadInput) where `cost` has not one entry for each stage, names a rank that the schedule does not
/// have, or is refused by `validate`.
[[nodiscard]] Timeline simulate(const VerifiedSchedule& schedule, const Cost& cost,
                                const SimulationOptions& options = {});

}  // namespace penstock
