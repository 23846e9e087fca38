/// \file
/// Nothing runs unverified: the executor and the simulator take a `VerifiedSchedule`, and only `verify` makes one.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "penstock/schedule/schedule.h"

namespace penstock {

/// How a send and a receive end, which decides whether their order can stand still.
enum class SendMode {
  /// At once: a send's message waits for its receive, a receive posts a buffer, and the action that needs the message
  /// waits for it. What penstock's transports do.
  NonBlocking,
  Blocking,  ///< When the other side has been reached, as a rendezvous does (NCCL without buffers).
};

/// In which order a stage's weight gradients may be added up.
enum class Accumulation {
  InOrder,  ///< That of the microbatches, which makes the sums equal to the bit for every schedule. What penstock runs.
  AnyOrder,  ///< Whatever the file says, for schedules of other engines that are to be looked at and not run.
};

/// What `verify` assumes of the sends, and the limits that it holds a schedule against.
struct VerifyOptions {
  SendMode sends = SendMode::NonBlocking;  ///< matters only to schedules with sends and receives
  /// The most activations that a rank may hold at a time, in activations of one microbatch on one stage: one more with
  /// each F, one less with each B or W. Nothing: no limit. A forward-only schedule holds none.
  std::optional<int> memory_cap = std::nullopt;
  Accumulation accumulation = Accumulation::InOrder;
};

/// A schedule that has been proved complete and free of deadlock. Immutable.
class VerifiedSchedule {
 public:
  [[nodiscard]] const Schedule& get() const { return schedule_; }
  const Schedule* operator->() const { return &schedule_; }

  /// What was proved of the weight gradients. The executor runs only `InOrder`.
  [[nodiscard]] Accumulation accumulation() const { return accumulation_; }

 private:
  friend VerifiedSchedule verify(Schedule schedule, const VerifyOptions& options);
  VerifiedSchedule(Schedule schedule, Accumulation accumulation)
      : schedule_(std::move(schedule)), accumulation_(accumulation) {}
  Schedule schedule_;
  Accumulation accumulation_;
};

/// Proves that
/// - every stage does every microbatch's F and its B (or I and then W) exactly once, all on one rank that holds the
/// stage;
///   where the schedule says `forward_only`, its F and nothing else;
/// - every action comes after what it depends on, and no set of actions waits for itself in a circle (no deadlock),
///   for compute schedules as for lowered ones, with non-blocking or with blocking sends;
/// - gradients accumulate in the order of the microbatches on every copy of a stage, which is what makes the numbers
/// equal
///   to the bit;
/// - in a lowered schedule every boundary that crosses ranks is sent and received exactly once, after it was computed
/// and
///   before it is used, so that a buffer is alive when it is read and is freed once;
/// - overlapped pairs are a forward and a backward that do not need each other;
/// - no rank holds more activations than the cap, where there is one.
///
/// Time and memory are linear in the number of actions.
///
/// \throws Error (BadInput). The message's first line stands alone: rank and position (from 0, empty cells counted),
/// the action, what is wrong and what to do; for a deadlock, the circle. The lines after it show the neighbourhood in
/// the grid with the action between `>` and `<`.
[[nodiscard]] VerifiedSchedule verify(Schedule schedule, const VerifyOptions& options = {});

/// The most activations that each rank holds at a time, counted as the cap of VerifyOptions counts them.
[[nodiscard]] std::vector<int> peak_activations(const Schedule& schedule);

}  // namespace penstock
