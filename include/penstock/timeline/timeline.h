/// \file
/// Who did what from when to when, with what memory, and what the links between ranks cost. The simulator and the
/// executor write the same type, so that what is drawn beforehand can be laid over what was measured.
///
///     const penstock::Timeline timeline = penstock::simulate(schedule, cost);
///     std::cout << penstock::to_string(penstock::makespan(timeline)) << '\n';
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// One action of one rank, from `start` to `end`, both counted from the timeline's own zero.
struct Event {
  Action action;
  Milliseconds start;
  Milliseconds end;

  friend bool operator==(const Event&, const Event&) = default;
};

/// From `time` on a rank holds `bytes`, until its next sample.
struct MemorySample {
  Milliseconds time;
  Bytes bytes;

  friend bool operator==(const MemorySample&, const MemorySample&) = default;
};

/// One step of the pipeline. Events of a rank are in the order of execution; compute events of a rank do not overlap,
/// but for the two halves of an overlapped pair.
struct Timeline {
  std::vector<std::vector<Event>> ranks;
  /// By rank, in the order of time; empty, or empty for a rank, if memory was not counted.
  std::vector<std::vector<MemorySample>> memory = {};

  friend bool operator==(const Timeline&, const Timeline&) = default;
};

/// The same without sends, receives and whatever else is no compute action. Memory stays as it was counted.
[[nodiscard]] Timeline compute_actions(const Timeline& timeline);

/// The same with its zero where the first action of any rank starts; memory that was counted before has times below 0.
/// A timeline without actions stays as it is.
[[nodiscard]] Timeline from_first_start(const Timeline& timeline);

/// From the first start of any rank to the last end of any; 0 for an empty timeline.
[[nodiscard]] Milliseconds makespan(const Timeline& timeline);

/// From the first start to the last end of this rank's compute actions; 0 for a rank that computes nothing.
[[nodiscard]] Milliseconds span(const Timeline& timeline, RankId rank);

/// The time that a rank spends in compute actions; waiting in a receive is not work.
[[nodiscard]] Milliseconds busy_time(const Timeline& timeline, RankId rank);

/// Busy time of all ranks over ranks × makespan: 1 if no rank ever waits. 0 for an empty timeline.
[[nodiscard]] double utilisation(const Timeline& timeline);

/// The share of ranks × makespan in which ranks do not compute, 1 − `utilisation`: the clock of one isolated step.
/// 0 for an empty timeline.
[[nodiscard]] double bubble_makespan(const Timeline& timeline);

/// The share of ranks × longest span in which ranks do not compute; 0 for an empty timeline. The zero-bubble papers'
/// metric (arXiv 2401.10241, section 5.3): ranks may start the next step at different times, so that the longest span,
/// and not the makespan, sets the pace of many steps in a row.
[[nodiscard]] double bubble_span(const Timeline& timeline);

/// The most microbatches of one stage whose activations a rank holds at once: from the start of their `F` to the end of
/// their `B`, or of their `W` where the backward is split. An `F` that no backward follows holds its own only while it
/// runs.
[[nodiscard]] int peak_activations(const Timeline& timeline, RankId rank);

/// The largest of a rank's memory samples; 0 if memory was not counted.
[[nodiscard]] Bytes peak_bytes(const Timeline& timeline, RankId rank);

/// What a rank did, in figures.
struct RankSummary {
  Milliseconds busy;
  int peak_activations = 0;
  Bytes peak_bytes;

  friend bool operator==(const RankSummary&, const RankSummary&) = default;
};

/// A step in figures: all of the above at once, without the events.
struct TimelineSummary {
  Milliseconds makespan;
  double bubble_makespan = 0;
  double bubble_span = 0;
  std::vector<RankSummary> ranks;

  friend bool operator==(const TimelineSummary&, const TimelineSummary&) = default;
};

/// The figures of a timeline: makespan, bubbles and each rank's share of work.
[[nodiscard]] TimelineSummary summarise(const Timeline& timeline);

/// What went from one rank to another in training steps, and how long it took. A message's transfer goes from the start
/// of its send to its arrival; hidden is what of it the receiving rank did not wait for.
struct LinkUse {
  int from = 0;  ///< rank
  int to = 0;    ///< rank
  bool between_processes = false;
  Bytes bytes;  ///< of boundaries' tensors, as they travelled
  std::int64_t messages = 0;
  Milliseconds waited;    ///< the receiving rank stood in its receives: for the sender's work and for the transfer
  Milliseconds transfer;  ///< of all messages, one after the other
  Milliseconds hidden;    ///< of the transfer, while the receiving rank did something else

  friend bool operator==(const LinkUse&, const LinkUse&) = default;
};

/// The share of the transfer that was hidden; 1 where nothing took time.
[[nodiscard]] double hidden_share(const LinkUse& use);

/// A table with a line for each link; of more than `most` links those that were waited for longest, and all others in
/// one line. Empty where there is no link.
[[nodiscard]] std::string link_table(const std::vector<LinkUse>& links, std::size_t most = 16);

/// A list of objects: `from`, `to`, `between_processes`, `bytes`, `messages`, `waited_ms`, `transfer_ms`, `hidden`.
[[nodiscard]] std::string to_json(const std::vector<LinkUse>& links);

}  // namespace penstock
