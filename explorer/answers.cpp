#include "answers.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <vector>

#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"

#include "formula.h"

namespace penstock::explorer {
namespace {

std::string percent(double share) { return fmt::format("{:.2f} %", share * 100); }

std::string in_milliseconds(Milliseconds time) { return fmt::format("{:.6g} ms", time.count); }

void append_events(std::string& out, const std::vector<Event>& events) {
  out += '[';
  for (const Event& event : events) {
    if (!is_compute(event.action.kind)) continue;
    fmt::format_to(std::back_inserter(out), "{}{},{},{},{},{},{}", out.back() == '[' ? "" : ",", event.start.count,
                   event.end.count, static_cast<int>(event.action.kind), event.action.stage.value,
                   event.action.microbatch.value, event.action.overlaps_next ? 1 : 0);
  }
  out += ']';
}

void append_memory(std::string& out, const std::vector<MemorySample>& samples) {
  out += '[';
  for (const MemorySample& sample : samples)
    fmt::format_to(std::back_inserter(out), "{}{},{}", out.back() == '[' ? "" : ",", sample.time.count,
                   sample.bytes.count);
  out += ']';
}

bool has_sizes(const Cost& cost) {
  if (!cost.memory_caps.empty() || !cost.links.empty()) return true;
  if (cost.default_link.bytes_per_millisecond < LinkCost{}.bytes_per_millisecond) return true;
  return std::any_of(cost.stages.begin(), cost.stages.end(), [&](const StageCost& stage) {
    StageCost times;
    times.forward = stage.forward;
    times.input_backward = stage.input_backward;
    times.weight_backward = stage.weight_backward;
    return stage != times || stage != cost.stages.front();
  });
}

/// " --forward 2", nothing for the default, and the number's text too long for an option.
struct TimeOptions {
  std::string text;
  bool short_enough = true;

  void add(const char* option, Milliseconds time, double otherwise) {
    const std::string number = fmt::format("{}", time.count);
    constexpr std::size_t longest = 8;
    short_enough = short_enough && number.size() <= longest;
    if (time.count != otherwise) text += fmt::format(" --{} {}", option, number);
  }
};

std::string cost_options(const Cost& cost) {
  TimeOptions options;
  options.add("forward", cost.stages.front().forward, 1);
  options.add("input-backward", cost.stages.front().input_backward, 1);
  options.add("weight-backward", cost.stages.front().weight_backward, 1);
  options.add("link", cost.default_link.latency, 0);
  return has_sizes(cost) || !options.short_enough ? " --cost cost.json" : options.text;
}

bool stages_vary(const std::string& name) {
  const auto families = schedule_families();
  return std::any_of(families.begin(), families.end(), [&](const ScheduleFamily& family) {
    return family.name == name && family.stages_per_rank_varies;
  });
}

Json formula_json(const BubbleFormula& formula) {
  Json json = {{"words", formula.words},
               {"share", formula.share},
               {"share_text", percent(formula.share)},
               {"of_makespan", formula.of_makespan},
               {"condition", formula.condition}};
  if (formula.idle) json["idle_text"] = in_milliseconds(*formula.idle);
  return json;
}

}  // namespace

Json figures_of(const SimulationAnswer& answer) {
  Json ranks = Json::array();
  int most = 0;
  Bytes most_bytes;
  for (const RankSummary& rank : answer.summary.ranks) {
    most = std::max(most, rank.peak_activations);
    most_bytes = std::max(most_bytes, rank.peak_bytes);
  }
  Json over = Json::array();
  for (std::size_t index = 0; index < answer.summary.ranks.size(); ++index) {
    const RankSummary& rank = answer.summary.ranks[index];
    Json entry = {{"busy", in_milliseconds(rank.busy)},
                  {"idle", in_milliseconds(answer.summary.makespan - rank.busy)},
                  {"peak_activations", rank.peak_activations}};
    if (most_bytes.count > 0) entry["peak_memory"] = to_string(rank.peak_bytes);
    ranks.push_back(std::move(entry));
    if (index < answer.memory_caps.size() && rank.peak_bytes > answer.memory_caps[index])
      over.push_back(fmt::format("rank {} needs {}, above its cap of {}", index, to_string(rank.peak_bytes),
                                 to_string(answer.memory_caps[index])));
  }
  Json figures = {{"makespan", in_milliseconds(answer.summary.makespan)},
                  {"bubble_makespan", percent(answer.summary.bubble_makespan)},
                  {"bubble_span", percent(answer.summary.bubble_span)},
                  {"peak_activations", most}};
  if (most_bytes.count > 0) figures["peak_memory"] = to_string(most_bytes);
  figures["ranks"] = std::move(ranks);
  figures["over_caps"] = std::move(over);
  return figures;
}

std::string timeline_json(const Timeline& timeline) {
  std::string out = "{\"ranks\":[";
  for (const auto& events : timeline.ranks) {
    if (out.back() == ']') out += ',';
    append_events(out, events);
  }
  out += "],\"memory\":[";
  for (std::size_t rank = 0; rank < timeline.memory.size(); ++rank) {
    if (rank > 0) out += ',';
    append_memory(out, timeline.memory[rank]);
  }
  return out + "]}";
}

std::string with_member(const Json& object, const char* key, const std::string& json) {
  std::string text = object.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.pop_back();
  return fmt::format("{}{}\"{}\":{}}}", text, object.empty() ? "" : ",", key, json);
}

std::string command_of(const PipelineRequest& pipeline) {
  std::string text = fmt::format("penstock simulate {}", pipeline.schedule);
  if (pipeline.schedule != "schedule.csv")
    text += fmt::format(" --ranks {} --microbatches {}", pipeline.verified->ranks(), pipeline.verified->microbatches);
  if (stages_vary(pipeline.schedule)) text += fmt::format(" --stages-per-rank {}", pipeline.stages_per_rank);
  return text + cost_options(pipeline.cost);
}

Json answer_of(const SimulationAnswer& answer) { return Json::parse(to_json(answer)); }

Json answer_to_play(const PipelineRequest& pipeline, const Timeline& timeline) {
  const Schedule& schedule = pipeline.verified.get();
  const SimulationAnswer answer{pipeline.schedule, schedule.stages, schedule.microbatches, summarise(timeline),
                                pipeline.cost.memory_caps};
  Json json = {{"answer", answer_of(answer)}, {"figures", figures_of(answer)}, {"command", command_of(pipeline)}};
  const bool alike = std::all_of(pipeline.cost.stages.begin(), pipeline.cost.stages.end(),
                                 [&](const StageCost& stage) { return stage == pipeline.cost.stages.front(); });
  if (const auto formula = bubble_formula(pipeline.schedule, schedule.ranks(), schedule.microbatches,
                                          pipeline.stages_per_rank, pipeline.cost.stages.front());
      formula && alike)
    json["formula"] = formula_json(*formula);
  json["cost"] = to_json(pipeline.cost);
  const StageCost& first = pipeline.cost.stages.front();
  json["stage_times"] = {in_milliseconds(first.forward), in_milliseconds(first.input_backward),
                         in_milliseconds(first.weight_backward)};
  json["stages_per_rank"] = pipeline.stages_per_rank;
  json["ranks"] = schedule.ranks();
  json["link"] = {
      {"latency_ms", pipeline.cost.default_link.latency.count},
      {"transfer_ms", static_cast<double>(first.boundary.count) / pipeline.cost.default_link.bytes_per_millisecond}};
  return json;
}

}  // namespace penstock::explorer
