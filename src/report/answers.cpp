#include "penstock/report/answers.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <tuple>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

Bytes most_bytes(const SimulationAnswer& answer) {
  Bytes most;
  for (const RankSummary& rank : answer.summary.ranks) most = std::max(most, rank.peak_bytes);
  return most;
}

/// Without sizes in the costs every peak is 0, which says nothing.
bool sizes_are_known(const SimulationAnswer& answer) { return most_bytes(answer).count > 0; }

Json rank_to_json(const SimulationAnswer& answer, std::size_t rank) {
  const RankSummary& summary = answer.summary.ranks[rank];
  Json object = {{"rank", rank},
                 {"busy_ms", summary.busy.count},
                 {"peak_activations", summary.peak_activations},
                 {"peak_bytes", nullptr}};
  if (sizes_are_known(answer)) object["peak_bytes"] = summary.peak_bytes.count;
  if (rank < answer.memory_caps.size()) object["memory_cap_bytes"] = answer.memory_caps[rank].count;
  return object;
}

Json answer_to_json(const SimulationAnswer& answer) {
  Json ranks = Json::array();
  for (std::size_t rank = 0; rank < answer.summary.ranks.size(); ++rank) ranks.push_back(rank_to_json(answer, rank));
  Json object = {{"schedule", answer.schedule},
                 {"microbatches", answer.microbatches},
                 {"stages", answer.stages},
                 {"makespan_ms", answer.summary.makespan.count},
                 {"bubble_makespan", answer.summary.bubble_makespan},
                 {"bubble_span", answer.summary.bubble_span},
                 {"ranks", ranks}};
  if (answer.row) {
    object["steps"] = answer.row->steps;
    object["first_step_ms"] = answer.row->first.count;
    object["pace_ms"] = answer.row->pace.count;
    object["utilisation"] = answer.row->utilisation;
  }
  return object;
}

/// A file's name may hold bytes that are no text; the answer must still be JSON.
std::string print(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

int most_activations(const SimulationAnswer& answer) {
  int most = 0;
  for (const RankSummary& rank : answer.summary.ranks) most = std::max(most, rank.peak_activations);
  return most;
}

std::string percent(double share) { return fmt::format("{:.2f} %", share * 100); }

double gap_to_bound(const SynthesisAnswer& answer) {
  return answer.lower_bound.count > 0 ? answer.longest_span.count / answer.lower_bound.count - 1 : 0;
}

std::string over_caps(const SimulationAnswer& answer) {
  std::string lines;
  for (std::size_t rank = 0; rank < answer.memory_caps.size(); ++rank) {
    const Bytes peak = answer.summary.ranks[rank].peak_bytes;
    if (peak > answer.memory_caps[rank])
      lines += fmt::format("rank {} needs {}, above its cap of {}\n", rank, to_string(peak),
                           to_string(answer.memory_caps[rank]));
  }
  return lines;
}

}  // namespace

void sort_by_bubble(ComparisonAnswer& comparison) {
  const auto key = [](const SimulationAnswer& answer) {
    const double idle = answer.row ? 1 - answer.row->utilisation : answer.summary.bubble_makespan;
    return std::tuple(idle, most_activations(answer), answer.schedule);
  };
  std::stable_sort(comparison.answers.begin(), comparison.answers.end(),
                   [&](const SimulationAnswer& a, const SimulationAnswer& b) { return key(a) < key(b); });
}

std::string to_json(const SimulationAnswer& answer) { return print(answer_to_json(answer)); }

std::string to_json(const SynthesisAnswer& answer) {
  Json object = answer_to_json(answer.simulation);
  object["longest_span_ms"] = answer.longest_span.count;
  object["lower_bound_ms"] = answer.lower_bound.count;
  object["gap_to_bound"] = gap_to_bound(answer);
  object["proved_optimal"] = answer.proved_optimal;
  if (!answer.best_generator.empty()) {
    object["best_generator"] = answer.best_generator;
    object["best_generator_span_ms"] = answer.generator_span.count;
  }
  return print(object);
}

std::string to_json(const ComparisonAnswer& comparison) {
  Json object = {{"schedules", Json::array()}, {"refused", Json::array()}};
  for (const SimulationAnswer& answer : comparison.answers) object["schedules"].push_back(answer_to_json(answer));
  for (const RefusedSchedule& refused : comparison.refused)
    object["refused"].push_back({{"schedule", refused.schedule}, {"reason", refused.reason}});
  return print(object);
}

std::string to_text(const SimulationAnswer& answer) {
  const bool bytes = sizes_are_known(answer);
  std::string text = fmt::format(
      "{}: {}, {}, {}\nmakespan {:.6g} ms, bubble {} of the makespan, {} of the longest "
      "span\n\n"
      "{:>4}  {:>12}  {:>16}{}\n",
      answer.schedule, counted(static_cast<std::int64_t>(answer.summary.ranks.size()), "rank"),
      counted(answer.stages, "stage"), counted(answer.microbatches, "microbatch"), answer.summary.makespan.count,
      percent(answer.summary.bubble_makespan), percent(answer.summary.bubble_span), "rank", "busy (ms)",
      "peak activations", bytes ? "  peak memory" : "");
  for (std::size_t rank = 0; rank < answer.summary.ranks.size(); ++rank) {
    const RankSummary& summary = answer.summary.ranks[rank];
    text += fmt::format("{:>4}  {:>12.6g}  {:>16}{}\n", rank, summary.busy.count, summary.peak_activations,
                        bytes ? fmt::format("  {:>11}", to_string(summary.peak_bytes)) : "");
  }
  text += over_caps(answer);
  if (answer.row)
    text += fmt::format("\n{} in a row: {:.6g} ms each after the first, in which a rank computes {} of the time\n",
                        counted(answer.row->steps, "step"), answer.row->pace.count, percent(answer.row->utilisation));
  return text;
}

std::string to_text(const SynthesisAnswer& answer) {
  std::string text = to_text(answer.simulation);
  text += fmt::format("\nlongest span {:.6g} ms; ", answer.longest_span.count);
  text += answer.proved_optimal ? std::string("no schedule of this placement under these caps has a shorter one\n")
                                : fmt::format("none is below {:.6g} ms, {} less\n", answer.lower_bound.count,
                                              percent(1 - answer.lower_bound.count / answer.longest_span.count));
  if (answer.best_generator.empty())
    return text + "no published schedule has this placement and keeps within the caps\n";
  return text + fmt::format("the best published schedule, {}, has {:.6g} ms\n", answer.best_generator,
                            answer.generator_span.count);
}

std::string to_text(const ComparisonAnswer& comparison) {
  std::size_t widest = std::string("schedule").size();
  bool bytes = false;
  bool row = false;
  for (const SimulationAnswer& answer : comparison.answers) {
    row = row || answer.row;
    widest = std::max(widest, answer.schedule.size());
    bytes = bytes || most_bytes(answer).count > 0;
  }
  std::string text =
      fmt::format("{:<{}}  {:>6}  {:>13}  {:>15}  {:>11}{}  {:>16}{}\n", "schedule", widest, "stages", "makespan (ms)",
                  "bubble/makespan", "bubble/span", row ? "  a step in a row (ms)  busy in it" : "", "peak activations",
                  bytes ? "  peak memory" : "");
  for (const SimulationAnswer& answer : comparison.answers) {
    const std::string in_a_row =
        answer.row ? fmt::format("  {:>20.6g}  {:>10}", answer.row->pace.count, percent(answer.row->utilisation)) : "";
    text += fmt::format("{:<{}}  {:>6}  {:>13.6g}  {:>15}  {:>11}{}  {:>16}", answer.schedule, widest, answer.stages,
                        answer.summary.makespan.count, percent(answer.summary.bubble_makespan),
                        percent(answer.summary.bubble_span), in_a_row, most_activations(answer));
    text += bytes ? fmt::format("  {:>11}\n", to_string(most_bytes(answer))) : "\n";
  }
  for (const RefusedSchedule& refused : comparison.refused)
    text += fmt::format("{}: {}\n", refused.schedule, refused.reason);
  return text;
}

}  // namespace penstock
