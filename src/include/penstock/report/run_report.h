/// \file
/// What the folders of training runs hold, and a page of one or several of them.
///
///     const std::vector<penstock::RecordedRun> runs{penstock::read_run("first"), penstock::read_run("second")};
///     penstock::write_file_atomically("report.html", penstock::to_html(runs));
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/report/read_trace.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// A figure of a run by step. Not a number where the line of a step has none.
using RunCurve = std::vector<double>;

/// The lines of `metrics.jsonl`, a curve for each name of docs/metrics.md. All curves are as
/// long as `steps`.
struct RunCurves {
  std::vector<std::int64_t> steps;  ///< ascending
  RunCurve loss;
  RunCurve held_out_loss;
  RunCurve step_ms;
  RunCurve data_ms;
  RunCurve tokens_per_s;
  RunCurve utilisation;
  RunCurve learning_rate;
  RunCurve gradient_norm;
  RunCurve checkpoint_ms;  ///< that training waited before the step; 0 where it did not
  RunCurve evaluation_ms;

  friend bool operator==(const RunCurves&, const RunCurves&) = default;
};

/// Where a rank's time of a step goes, as a mean over those steps whose lines say so.
struct RankTime {
  Milliseconds compute;  ///< in passes
  Milliseconds link;     ///< stood in receives while the message was on its way
  Milliseconds bubble;   ///< the rest, from its first action to its last
  Milliseconds update;   ///< from its last action to the first of the next step, as far as that is not data

  friend bool operator==(const RankTime&, const RankTime&) = default;
};

/// What a run holds on a rank.
struct RankMemory {
  std::optional<Bytes> peak;
  std::optional<Bytes> peak_activations;
  std::optional<Bytes> planned;

  friend bool operator==(const RankMemory&, const RankMemory&) = default;
};

/// A line of `events.jsonl`.
struct RunEvent {
  std::string time;
  std::int64_t step = 0;
  std::string kind;
  std::string text;

  friend bool operator==(const RunEvent&, const RunEvent&) = default;
};

/// A run as its folder tells of it.
struct RecordedRun {
  std::string name;                                           ///< as it was asked for
  std::vector<std::pair<std::string, std::string>> settings;  ///< of config.toml, in its order
  RunCurves curves;
  std::string first_time;  ///< of the first and the last line; empty where there is none
  std::string last_time;
  std::optional<std::int64_t> tokens;  ///< of all updates
  std::optional<Milliseconds> planned_step;
  std::optional<double> planned_utilisation;
  std::vector<RankTime> ranks;
  std::int64_t timed_steps = 0;  ///< that `ranks` is the mean of
  std::vector<RankMemory> memory;
  std::vector<LinkUse> links;        ///< since the run's last start
  std::optional<MeasuredStep> step;  ///< the last one that was kept
  std::vector<RunEvent> events;
  std::vector<std::string> notes;  ///< what the folder lacks, or what of it cannot be read, a sentence each

  friend bool operator==(const RecordedRun&, const RecordedRun&) = default;
};

/// Reads what is there. What is missing or damaged is left out, with a note. Files that a run writes meanwhile are read
/// as far as they are whole. \throws Error (BadInput) where `folder` is no folder of a run.
[[nodiscard]] RecordedRun read_run(const std::filesystem::path& folder);

/// How the page is made.
struct RunPageOptions {
  std::string title = "penstock report";
  int reload_seconds = 0;  ///< the page loads itself anew so often; 0: never
};

/// A page that needs nothing beside it: a table of the runs, their curves, each rank's time and memory, links, the last
/// step over its prediction, what happened, and the settings that differ. Curves of many steps are drawn as bands: of
/// every so many steps the least, the median and the most. \param runs at least one.
[[nodiscard]] std::string to_html(const std::vector<RecordedRun>& runs, const RunPageOptions& options = {});

}  // namespace penstock
