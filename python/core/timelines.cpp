#include <filesystem>
#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <tuple>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/report/comparison.h"
#include "penstock/report/report.h"

#include "core/values.h"

namespace penstock::python {

namespace py = pybind11;

namespace {

// As the engine's module hands timelines over, and as they are pickled: kind, stage, microbatch, overlaps, start, end.
using EventState = std::tuple<int, std::int32_t, std::int32_t, bool, double, double>;
using SampleState = std::tuple<double, std::int64_t>;
template <class Entry>
using ByRank = std::vector<std::vector<Entry>>;

TitledTimeline timeline_from_state(const ByRank<EventState>& events, const ByRank<SampleState>& memory,
                                   const std::string& title, const std::string& unit) {
  TitledTimeline made{{}, title, unit};
  for (const auto& rank_entries : events) {
    auto& rank = made.timeline.ranks.emplace_back();
    for (const auto& [kind, stage, microbatch, overlaps, start, end] : rank_entries) {
      if (kind < 0 || kind > static_cast<int>(ActionKind::Idle))
        throw bad_input(fmt::format("an action of kind {}", kind), "one that this penstock knows",
                        "take its own pickle");
      rank.push_back({{static_cast<ActionKind>(kind), {stage}, {microbatch}, overlaps}, {start}, {end}});
    }
  }
  for (const auto& rank_entries : memory) {
    auto& rank = made.timeline.memory.emplace_back();
    for (const auto& [time, bytes] : rank_entries) rank.push_back({{time}, {bytes}});
  }
  return made;
}

py::tuple timeline_state(const TitledTimeline& titled) {
  ByRank<EventState> events;
  for (const auto& rank_entries : titled.timeline.ranks) {
    auto& rank = events.emplace_back();
    for (const Event& event : rank_entries)
      rank.emplace_back(static_cast<int>(event.action.kind), event.action.stage.value, event.action.microbatch.value,
                        event.action.overlaps_next, event.start.count, event.end.count);
  }
  ByRank<SampleState> memory;
  for (const auto& rank_entries : titled.timeline.memory) {
    auto& rank = memory.emplace_back();
    for (const MemorySample& sample : rank_entries) rank.emplace_back(sample.time.count, sample.bytes.count);
  }
  return py::make_tuple(events, memory, titled.title, titled.unit);
}

ByRank<std::tuple<std::string, double, double>> events_of(const TitledTimeline& titled) {
  ByRank<std::tuple<std::string, double, double>> events;
  for (const auto& rank_entries : titled.timeline.ranks) {
    auto& rank = events.emplace_back();
    for (const Event& event : rank_entries)
      rank.emplace_back(to_string(event.action), event.start.count, event.end.count);
  }
  return events;
}

ByRank<SampleState> samples_of(const TitledTimeline& titled) {
  ByRank<SampleState> samples;
  for (const auto& rank_entries : titled.timeline.memory) {
    auto& rank = samples.emplace_back();
    for (const MemorySample& sample : rank_entries) rank.emplace_back(sample.time.count, sample.bytes.count);
  }
  return samples;
}

template <class Value, class Figure>
std::vector<Value> by_rank(const TitledTimeline& titled, const Figure& figure) {
  std::vector<Value> figures;
  figures.reserve(titled.timeline.ranks.size());
  for (std::size_t rank = 0; rank < titled.timeline.ranks.size(); ++rank)
    figures.push_back(figure(titled.timeline, RankId{static_cast<std::int32_t>(rank)}));
  return figures;
}

std::string timeline_svg(const TitledTimeline& titled) { return to_svg(titled.timeline, {titled.title, titled.unit}); }

std::string timeline_html(const TitledTimeline& titled) {
  return to_html({{"timeline", titled.timeline}}, {titled.title, titled.unit});
}

void save_timeline(const TitledTimeline& titled, const std::filesystem::path& path) {
  const std::string ending = path.extension().string();
  if (ending == ".svg")
    write_file_atomically(path, timeline_svg(titled));
  else if (ending == ".html")
    write_file_atomically(path, timeline_html(titled));
  else if (ending == ".json")
    write_file_atomically(path, to_chrome_trace(titled.timeline));
  else if (ending == ".txt")
    write_file_atomically(path, to_grid(titled.timeline));
  else
    throw bad_input("a file named " + shortened(path.string()), "one that ends in .svg, .html, .json (a trace) or .txt",
                    "change the name");
}

std::string timeline_repr(const TitledTimeline& titled) {
  return fmt::format("Timeline({} ranks, makespan {:.6g} {}, bubble {:.1f} %)", titled.timeline.ranks.size(),
                     makespan(titled.timeline).count, titled.unit, 100 * bubble_makespan(titled.timeline));
}

using TimelineType = py::class_<TitledTimeline>;

void add_figures(TimelineType& type) {
  type.def_readonly("title", &TitledTimeline::title, "Above its drawings.")
      .def_readonly("unit", &TitledTimeline::unit, "What times count: 'ms', or 'units' where passes have no cost.")
      .def_property_readonly(
          "makespan", [](const TitledTimeline& self) { return makespan(self.timeline).count; },
          "From the first start of any rank to the last end of any.")
      .def_property_readonly(
          "bubble", [](const TitledTimeline& self) { return bubble_makespan(self.timeline); },
          "The share of ranks x makespan in which ranks do not compute: one step alone.")
      .def_property_readonly(
          "bubble_span", [](const TitledTimeline& self) { return bubble_span(self.timeline); },
          "The share of ranks x longest span in which ranks do not compute: steps one after the other.")
      .def_property_readonly(
          "utilisation", [](const TitledTimeline& self) { return utilisation(self.timeline); },
          "The share of ranks x makespan in which ranks compute: 1 - bubble.")
      .def_property_readonly(
          "busy",
          [](const TitledTimeline& self) {
            return by_rank<double>(self, [](const auto& of, RankId rank) { return busy_time(of, rank).count; });
          },
          "By rank, the time in which it computes.")
      .def_property_readonly(
          "peak_activations",
          [](const TitledTimeline& self) {
            return by_rank<int>(self, [](const auto& of, RankId rank) { return peak_activations(of, rank); });
          },
          "By rank, the most activations that it holds at once, of one microbatch on one stage.")
      .def_property_readonly(
          "peak_bytes",
          [](const TitledTimeline& self) {
            return by_rank<std::int64_t>(self, [](const auto& of, RankId rank) { return peak_bytes(of, rank).count; });
          },
          "By rank, the most memory that was counted; 0 where none was.")
      .def_property_readonly("events", &events_of,
                             "By rank, its actions in order: (action, start, end), ('2F0', 1.0, 2.0).")
      .def_property_readonly("memory", &samples_of, "By rank, (time, bytes): from then on it holds so many.")
      .def(
          "compute_actions",
          [](const TitledTimeline& self) {
            return TitledTimeline{compute_actions(self.timeline), self.title, self.unit};
          },
          "The same without sends, receives and whatever else is no compute action.")
      .def(
          "compare",
          [](const TitledTimeline& self, const TitledTimeline& measured) {
            return comparison_text(self.timeline, measured.timeline, self.unit);
          },
          py::arg("measured"), "What was measured against this prediction, as a table.")
      .def(
          "comparison_svg",
          [](const TitledTimeline& self, const TitledTimeline& measured) {
            return comparison_svg(self.timeline, measured.timeline, {self.title, self.unit});
          },
          py::arg("measured"), "Each rank's predicted row above its measured one.");
}

void add_drawings(TimelineType& type) {
  type.def("to_svg", &timeline_svg, "A drawing: a row a rank, a box an action.")
      .def("to_html", &timeline_html, "A page of its own: zoom, drag and hover.")
      .def(
          "to_text",
          [](const TitledTimeline& self, bool colour, int width) { return to_grid(self.timeline, {colour, width}); },
          py::kw_only(), py::arg("colour") = false, py::arg("width") = 0,
          "A drawing of characters. colour: with a terminal's colours. width: characters a line; 0: as many as it "
          "takes.")
      .def(
          "to_chrome_trace", [](const TitledTimeline& self) { return to_chrome_trace(self.timeline); },
          "For ui.perfetto.dev.")
      .def("save", &save_timeline, py::arg("path"), "As the name ends: .svg, .html, .json (a trace) or .txt.")
      .def("_repr_svg_", &timeline_svg)
      .def("_repr_html_", &timeline_svg)
      .def("__str__", [](const TitledTimeline& self) { return to_grid(self.timeline); });
}

}  // namespace

void add_timelines(py::module_& module) {
  TimelineType type(
      module, "Timeline",
      "Who did what from when to when, simulated or measured: one step of a pipeline. Times are in `unit`, "
      "from the timeline's own zero.");
  add_figures(type);
  add_drawings(type);
  type.def("__repr__", &timeline_repr)
      .def(
          "__eq__", [](const TitledTimeline& a, const TitledTimeline& b) { return a == b; }, py::is_operator())
      .def_static("_from_state", &timeline_from_state, py::arg("events"), py::arg("memory"), py::arg("title"),
                  py::arg("unit"))
      .def(py::pickle(&timeline_state,
                      [](const py::tuple& state) {
                        return timeline_from_state(state[0].cast<ByRank<EventState>>(),
                                                   state[1].cast<ByRank<SampleState>>(), state[2].cast<std::string>(),
                                                   state[3].cast<std::string>());
                      }))
      .attr("__hash__") = py::none();
}

}  // namespace penstock::python
