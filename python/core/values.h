// What the module _core shows of penstock's values: with a name, where a drawing wants a title.
#pragma once

#include <memory>
#include <optional>
#include <pybind11/pybind11.h>
#include <string>

#include "penstock/cost/cost.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"

namespace penstock::python {

// A schedule and what to call it: "zb-v", a file's name, or nothing.
struct NamedSchedule {
  Schedule schedule;
  std::string name;

  // The name is for people.
  friend bool operator==(const NamedSchedule& a, const NamedSchedule& b) { return a.schedule == b.schedule; }
};

// A timeline, the title of its drawing, and what its times count.
struct TitledTimeline {
  Timeline timeline;
  std::string title;
  std::string unit = "ms";

  friend bool operator==(const TitledTimeline& a, const TitledTimeline& b) { return a.timeline == b.timeline; }
};

// A plan and what was found beside it: what it prints.
struct ReportedPlan {
  Plan plan;
  std::string report;
  std::string json;                            // what it says to programs
  std::shared_ptr<const LayerCosts> costs;     // null: not known
  std::shared_ptr<const PlanRequest> request;  // null: not known
  std::shared_ptr<const PlanAnswer> answer;    // null: not known
  friend bool operator==(const ReportedPlan& a, const ReportedPlan& b) { return a.plan == b.plan; }
};

// "ZB-V on 4 ranks, 8 microbatches".
[[nodiscard]] std::string title_of(const NamedSchedule& schedule);

// Proved as far as it has to be to be looked at: gradients may add up in any order.
[[nodiscard]] VerifiedSchedule looked_at(const Schedule& schedule);

// Plays it. No cost: every pass takes one unit.
[[nodiscard]] TitledTimeline play(const NamedSchedule& schedule, const std::optional<Cost>& cost);

// JSON of a text, or of what json.dumps takes.
[[nodiscard]] std::string json_of(const pybind11::object& value);

// What each file of the module adds to it.
void add_schedules(pybind11::module_& module);
void add_timelines(pybind11::module_& module);
void add_costs(pybind11::module_& module);
void add_synthesis(pybind11::module_& module);
void add_plans(pybind11::module_& module);

}  // namespace penstock::python
