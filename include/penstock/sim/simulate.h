/// \file
/// The simulator: plays a schedule with the costs of its stages and links on a virtual clock.
///
/// What it assumes:
/// - A rank does its actions in order, one at a time, each as soon as the rank is free and the action's inputs have
///   arrived. An overlapped pair is one action: it begins when the inputs of both are there, takes the sum of their
///   times, and has both results at its end. The formulas of DualPipe's authors count it so, and the executor does the
///   same.
/// - `B` takes as long as `I` and `W` together.
/// - While j of n ranks compute, each is contention / (1 + (contention - 1)(j - 1)/(n - 1)) times as fast as its costs
///   say (`Cost::contention`; decision 44): as the costs say while all compute, and fastest alone.
/// - A send does not block. Each ordered pair of ranks has a link of its own that carries one message at a time, in the
///   order of the sends: a message of b bytes occupies it for b / bandwidth and arrives `latency` later. Between two
///   stages of one rank there is no message. Receives are posted ahead, so that nothing but the link holds a message
///   up.
/// - In a lowered schedule a message leaves at its `SEND`, in a compute schedule at the end of the action that made it.
/// - Memory follows the ledger (penstock/cost/ledger.h). A message is held by its sender until the link has it. The
///   receiver counts it only while the action runs that uses it, as a part of the activation from an `F` on: a message
///   that waits is counted on no rank, as in the executor's count. The workspaces of an overlapped pair are held one
///   after the other.
///
///     const penstock::StageCost stage{.forward = {1}, .input_backward = {1}, .weight_backward = {1}};
///     const penstock::Timeline timeline = penstock::simulate(schedule, penstock::uniform_cost(4, stage));
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
/// an equal timeline, to the bit. Takes time and memory linear in the number of actions, and with contention
/// the logarithm of the ranks for each. Thread-safe.
/// \throws Error (BadInput) if `cost` has not one entry for each stage, names a rank that the schedule does not
/// have, or is refused by `validate`.
[[nodiscard]] Timeline simulate(const VerifiedSchedule& schedule, const Cost& cost,
                                const SimulationOptions& options = {});

}  // namespace penstock
