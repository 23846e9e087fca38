#include "penstock/report/read_trace.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/text_limits.h"

namespace penstock {
namespace {

using TraceJson = nlohmann::ordered_json;

constexpr const char* take_it = "take the timeline.json of a run's folder";
constexpr double microseconds_in_millisecond = 1000;
constexpr double most_traced_ranks = 100'000;

struct Slice {
  std::string name;
  Milliseconds start;
  Milliseconds end;
};

struct Trace {
  std::vector<std::vector<Slice>> ranks;
  std::vector<std::vector<MemorySample>> memory;

  void need(std::size_t rank) {
    if (rank < ranks.size()) return;
    ranks.resize(rank + 1);
    memory.resize(rank + 1);
  }
};

Error no_trace(const std::string& got) {
  return bad_input(fmt::format("timeline.json: {}", got), "a trace of a run of penstock", take_it);
}

double number_of(const TraceJson& event, const char* key) {
  const auto found = event.find(key);
  constexpr double most = 1e15;
  if (found == event.end() || !found->is_number() || !(std::abs(found->get<double>()) <= most))
    throw no_trace(fmt::format("an event without a number {}", key));
  return found->get<double>();
}

std::size_t checked_rank(double value) {
  if (!(value >= 0 && value < most_traced_ranks)) throw no_trace(fmt::format("rank {}", value));
  return static_cast<std::size_t>(value);
}

std::string text_of(const TraceJson& event, const char* key) {
  const auto found = event.find(key);
  return found != event.end() && found->is_string() ? found->get<std::string>() : "";
}

void read_event(Trace& trace, const TraceJson& event) {
  if (!event.is_object()) throw no_trace("an event that is no object");
  const std::string phase = text_of(event, "ph");
  if (phase != "X" && phase != "C") return;
  const std::string name = text_of(event, "name");
  const double at = number_of(event, "ts") / microseconds_in_millisecond;
  if (phase == "X") {
    const std::size_t rank = checked_rank(number_of(event, "tid"));
    trace.need(rank);
    trace.ranks[rank].push_back({name, {at}, {at + number_of(event, "dur") / microseconds_in_millisecond}});
    return;
  }
  constexpr std::string_view memory = "memory of rank ";
  if (!name.starts_with(memory) || !event.contains("args") || !event["args"].is_object()) return;
  const TraceJson rank = TraceJson::parse(name.substr(memory.size()), nullptr, false);
  if (!rank.is_number_unsigned()) throw no_trace("memory of no rank");
  const std::size_t index = checked_rank(rank.get<double>());
  trace.need(index);
  trace.memory[index].push_back({{at}, {static_cast<std::int64_t>(number_of(event["args"], "bytes"))}});
}

Trace read_slices(std::string_view text) {
  check_json_limits(text, "timeline.json", {.deepest = 8, .most_values = 20'000'000});
  const TraceJson document = TraceJson::parse(text, nullptr, false);
  if (!document.is_object() || !document.contains("traceEvents") || !document["traceEvents"].is_array())
    throw no_trace("no traceEvents");
  Trace trace;
  for (const TraceJson& event : document["traceEvents"]) read_event(trace, event);
  for (auto& slices : trace.ranks)
    std::stable_sort(slices.begin(), slices.end(),
                     [](const Slice& a, const Slice& b) { return a.start.count < b.start.count; });
  const auto empty = [](const auto& slices) { return slices.empty(); };
  if (trace.ranks.empty() || std::any_of(trace.ranks.begin(), trace.ranks.end(), empty))
    throw no_trace("a rank without actions");
  return trace;
}

/// The names are those of the text form, so that its reader finds stages, microbatches and holders.
Schedule schedule_of_trace(const Trace& trace) {
  std::string csv;
  for (const auto& slices : trace.ranks) {
    for (std::size_t at = 0; at < slices.size(); ++at) csv.append(at == 0 ? "" : ",").append(slices[at].name);
    csv += '\n';
  }
  return parse_schedule(csv);
}

Timeline timeline_of_trace(const Trace& trace, const Schedule& schedule) {
  Timeline timeline;
  timeline.ranks.resize(trace.ranks.size());
  for (std::size_t rank = 0; rank < trace.ranks.size(); ++rank)
    for (std::size_t at = 0; at < trace.ranks[rank].size(); ++at)
      timeline.ranks[rank].push_back(
          {schedule.actions[rank][at], trace.ranks[rank][at].start, trace.ranks[rank][at].end});
  const bool each_event_sampled =
      std::equal(trace.ranks.begin(), trace.ranks.end(), trace.memory.begin(),
                 [](const auto& slices, const auto& samples) { return samples.size() == slices.size(); });
  if (each_event_sampled) timeline.memory = trace.memory;
  return timeline;
}

}  // namespace

MeasuredStep read_chrome_trace(std::string_view trace) {
  const Trace events = read_slices(trace);
  MeasuredStep step;
  step.schedule = schedule_of_trace(events);
  step.timeline = timeline_of_trace(events, step.schedule);
  for (auto& row : step.schedule.actions)
    std::erase_if(row, [](const Action& action) { return !is_compute(action.kind); });
  return step;
}

}  // namespace penstock
