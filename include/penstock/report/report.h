/// \file
/// Timelines and plans for people and other programs: the grid that every paper on pipelines draws (a row a rank, time
/// to the right, a box an action, the microbatch's number in the box and its colour the kind of action) as text and as
/// SVG, a web page of its own, a trace for chrome://tracing and ui.perfetto.dev, and tables, JSON and drawings of
/// plans.
///
///     std::cout << penstock::to_grid(timeline, {.colour = true, .width = 120});
///     std::ofstream("step.html") << penstock::to_html({{"simulated", timeline}, {"measured", measured}});
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/plan/plan.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// How the text picture of a timeline is drawn.
struct GridOptions {
  bool colour = false;  ///< 256-colour escape sequences; boxes then hold only the microbatch's number
  int width = 0;        ///< characters a line, at least 24; 0: as many as the timeline needs
};

/// The compute actions as text, each line ended by a newline. A column is as long as the shortest action; actions of
/// other lengths are rounded to columns. Without colour a box is the text form of the action (`2F0`) and dashes for the
/// rest of its time. What does not fit into `width` is left out, and a last line says how much.
[[nodiscard]] std::string to_grid(const Timeline& timeline, const GridOptions& options = {});

/// How the SVG picture of a timeline is drawn.
struct SvgOptions {
  std::string title;             ///< above the picture; empty: none
  std::string time_unit = "ms";  ///< what the time axis counts: "ms", or another word where the times are units
};

/// The compute actions as an SVG picture of its own, readable on light and dark pages, with a title for each box that
/// browsers show on hover. Several stages of one rank are told apart by the lightness of their boxes, the first the
/// lightest.
[[nodiscard]] std::string to_svg(const Timeline& timeline, const SvgOptions& options = {});

/// A timeline and what to call it: "simulated", "measured", "1f1b".
struct NamedTimeline {
  std::string name;
  Timeline timeline;
};

/// How the HTML page of a timeline is made.
struct HtmlOptions {
  std::string title = "penstock";
  std::string time_unit = "ms";  ///< what times count: "ms", or another word where they are units
};

/// A page with one drawing over one time axis, in which the timelines stand below each other: a row a rank, a strip of
/// memory below it where memory was counted; scroll to zoom, drag to move, hover for times. Below it the figures of
/// each rank.
[[nodiscard]] std::string to_html(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options = {});

/// One trace: a track a rank, a slice an event, named as in the text form of a schedule (`2F0`), its category the kind
/// of action ("forward", "backward", "input_backward", "weight_backward", "communication"), its arguments stage and
/// microbatch, and a counter track for each rank that has memory samples. Times are in microseconds, kept to the
/// nanosecond.
/// \param process what the group of tracks is called, such as "measured" or "simulated".
[[nodiscard]] std::string to_chrome_trace(const Timeline& timeline, std::string_view process = "penstock");

/// What a plan was like when it was tried.
struct MeasuredPlan {
  Milliseconds step;               ///< median
  double utilisation = 0;          ///< median
  std::vector<Bytes> memory = {};  ///< the peak of each rank

  friend bool operator==(const MeasuredPlan&, const MeasuredPlan&) = default;
};

/// The best plan on another number of ranks.
struct PlanElsewhere {
  Plan plan;
  double spread = 0;  ///< how well the times that it was made from are known, as `PlanReport::spread`

  friend bool operator==(const PlanElsewhere&, const PlanElsewhere&) = default;
};

/// The answer to a request for plans, with all that is said beside it.
struct PlanReport {
  PlanAnswer answer;
  std::vector<Alternative> neighbours = {};
  std::vector<Alternative> other_circumstances = {};
  /// By rank; empty if no rank has one.
  std::vector<std::optional<Bytes>> memory_caps = {};
  std::vector<MeasuredPlan> measured = {};  ///< of the first plans, where they were tried
  std::vector<SweepPoint> sweep = {};       ///< where it was asked for; then the text says its answer
  double spread = 0;  ///< how well the layers' times are known, as in `Measurement`; 0 if it is not known
  /// The best plans on other numbers of ranks, if those were looked at; one rank is among them if the network fits on
  /// it.
  std::vector<PlanElsewhere> on_other_ranks = {};

  friend bool operator==(const PlanReport&, const PlanReport&) = default;
};

/// A table with a line a plan, what was measured beside what was predicted; the first plan's cut and memory by rank;
/// why it won; whether it pays beside other numbers of ranks, where both are known well enough to say so; what would
/// change the answer; what was not looked at.
[[nodiscard]] std::string to_text(const PlanReport& report);

/// One object: `plans`, a list of objects with what a plan file has, by the same names with `_` for `-`; `neighbours`
/// and `other_circumstances`, each of which has `what` and `plan`; `configurations`, `simulated`, `bounded_away`,
/// `over_memory`, `left_out`, `notes`, and `on_other_ranks`, plans with their `spread`, where they were looked at, and
/// `spread`. A plan that was tried has `measured`, an object with `step_ms`, `utilisation` and `memory_bytes`.
[[nodiscard]] std::string to_json(const PlanReport& report);

/// A measured step, to be drawn on its prediction.
struct MeasuredPoint {
  std::string schedule;
  int stages_per_rank = 1;
  int microbatches = 1;
  Milliseconds step;
};

/// Puts the plans into a sweep, each in place of a slower point of the same configuration. The cut of a plan was
/// refined in simulation, that of a point was not; so the best of the picture is the best of the table.
void include_plans(std::vector<SweepPoint>& points, const std::vector<Plan>& plans);

/// The answer of a sweep: "use M = 8 (1f1b, 318 ms); M of 4 to 16 are within 3 %". The range is of the numbers that
/// were looked at, each with its best schedule, without a gap around the best one. \param points at least one that
/// fits.
[[nodiscard]] std::string sweep_sentence(const std::vector<SweepPoint>& points);

/// An SVG picture: microbatches to the right, each twice the one before it, step time upwards, a line for each of the 8
/// fastest schedules, at the best of its numbers of stages a rank. The best point is ringed, what is within 3 % of it
/// is shaded, and the answer stands below the title. Hollow marks stand for what does not fit into the memory, crosses
/// for what was measured.
/// \param points of `sweep_plans`, at least one. \param spread how well the layers' times are known, as a share of
/// them: a bar through the best of each number of microbatches. 0: it is not known, and there are no bars.
[[nodiscard]] std::string sweep_svg(const std::vector<SweepPoint>& points,
                                    const std::vector<MeasuredPoint>& measured = {}, const std::string& title = "",
                                    double spread = 0);

}  // namespace penstock
