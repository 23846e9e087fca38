#include "measured.h"

#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/text_limits.h"
#include "penstock/sim/measured_cost.h"

namespace penstock::explorer {
namespace {

constexpr const char* take_it = "take the timeline.json of a run's folder";
constexpr double microseconds_in_millisecond = 1000;

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
  return bad_input("timeline.json: " + got, "a trace of a run of penstock", take_it);
}

double number(const Json& event, const char* key) {
  const auto found = event.find(key);
  constexpr double most = 1e15;
  if (found == event.end() || !found->is_number() || !(std::abs(found->get<double>()) <= most))
    throw no_trace(fmt::format("an event without a number {}", key));
  return found->get<double>();
}

std::size_t checked_rank(double value) {
  if (!(value >= 0 && value < most_ranks)) throw no_trace(fmt::format("rank {}", value));
  return static_cast<std::size_t>(value);
}

void read_event(Trace& trace, const Json& event) {
  if (!event.is_object()) throw no_trace("an event that is no object");
  const std::string phase = event.contains("ph") && event["ph"].is_string() ? event["ph"].get<std::string>() : "";
  if (phase != "X" && phase != "C") return;
  const std::string name = event.contains("name") && event["name"].is_string() ? event["name"].get<std::string>() : "";
  const double at = number(event, "ts") / microseconds_in_millisecond;
  if (phase == "X") {
    const std::size_t rank = checked_rank(number(event, "tid"));
    trace.need(rank);
    trace.ranks[rank].push_back({name, {at}, {at + number(event, "dur") / microseconds_in_millisecond}});
    return;
  }
  constexpr std::string_view memory = "memory of rank ";
  if (!name.starts_with(memory) || !event.contains("args") || !event["args"].is_object()) return;
  const Json rank = Json::parse(name.substr(memory.size()), nullptr, false);
  if (!rank.is_number_unsigned()) throw no_trace("memory of no rank");
  const std::size_t index = checked_rank(rank.get<double>());
  trace.need(index);
  trace.memory[index].push_back({{at}, {static_cast<std::int64_t>(number(event["args"], "bytes"))}});
}

Trace read_trace(std::string_view text) {
  if (text.size() > longest_text) throw no_trace(fmt::format("{} bytes, more than are read", text.size()));
  check_json_limits(text, "timeline.json", {.deepest = 8, .most_values = 2'000'000});
  const Json document = Json::parse(text, nullptr, false);
  if (!document.is_object() || !document.contains("traceEvents") || !document["traceEvents"].is_array())
    throw no_trace("no traceEvents");
  Trace trace;
  for (const Json& event : document["traceEvents"]) read_event(trace, event);
  for (auto& slices : trace.ranks)
    std::stable_sort(slices.begin(), slices.end(),
                     [](const Slice& a, const Slice& b) { return a.start.count < b.start.count; });
  return trace;
}

/// The names are those of the text form, so that its reader finds stages, microbatches and holders.
Schedule schedule_of(const Trace& trace) {
  std::string csv;
  for (const auto& slices : trace.ranks) {
    for (std::size_t at = 0; at < slices.size(); ++at) csv += (at == 0 ? "" : ",") + slices[at].name;
    csv += '\n';
  }
  return parse_schedule(csv);
}

Timeline timeline_of(const Trace& trace, const Schedule& schedule) {
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

MeasuredRun read_measured(std::string_view text) {
  const Trace trace = read_trace(text);
  const auto empty = [](const auto& slices) { return slices.empty(); };
  if (trace.ranks.empty() || std::any_of(trace.ranks.begin(), trace.ranks.end(), empty))
    throw no_trace("a rank without actions");
  Schedule schedule = schedule_of(trace);
  const Timeline timeline = timeline_of(trace, schedule);
  for (auto& row : schedule.actions) std::erase_if(row, [](const Action& action) { return !is_compute(action.kind); });
  const int per_rank = std::max(1, schedule.stages / schedule.ranks());
  check_passes(schedule.ranks(), per_rank, schedule.microbatches);
  Cost cost = measured_cost({timeline}, schedule);
  Timeline measured = from_first_start(compute_actions(timeline));
  return {std::move(measured),
          {"schedule.csv", per_rank, verify(std::move(schedule), {.accumulation = Accumulation::AnyOrder}),
           std::move(cost)}};
}

}  // namespace penstock::explorer
