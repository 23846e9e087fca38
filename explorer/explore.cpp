#include "explore.h"

#include <array>
#include <exception>
#include <filesystem>
#include <fmt/format.h>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/report/comparison.h"
#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"
#include "penstock/synthesis/synthesise.h"

#include "answers.h"
#include "measured.h"
#include "plan_answer.h"

namespace penstock::explorer {
namespace {

std::string print(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string families(const Json& /*request*/) {
  Json list = Json::array();
  for (const ScheduleFamily& family : schedule_families())
    list.push_back({{"name", family.name},
                    {"title", family.title},
                    {"paper", family.paper},
                    {"bubble", family.bubble},
                    {"memory", family.memory},
                    {"stages_per_rank", family.stages_per_rank},
                    {"stages_per_rank_varies", family.stages_per_rank_varies},
                    {"ranks_multiple", family.ranks_multiple},
                    {"stages_multiple", family.stages_multiple},
                    {"bidirectional", family.bidirectional}});
  return print({{"families", list},
                {"most_ranks", most_ranks},
                {"most_microbatches", most_microbatches},
                {"most_stages_per_rank", most_stages_per_rank}});
}

std::string play(const Json& request) {
  const PipelineRequest pipeline = read_pipeline(request);
  const Timeline timeline = simulate(pipeline.verified, pipeline.cost);
  return with_member(answer_to_play(pipeline, timeline), "timeline", timeline_json(timeline));
}

std::string compare(const Json& request) {
  const int microbatches = read_count(request, "microbatches", most_microbatches);
  const int wanted = read_count(request, "stages_per_rank", most_stages_per_rank, 0);
  ComparisonAnswer comparison;
  for (const ScheduleFamily& family : schedule_families()) {
    // It does a third of the others' work, and would always win.
    if (family.name == "forward-only") continue;
    const std::string name(family.name);
    // One stage a rank is the wish of families that have no more; a family of several keeps its own number then.
    const bool wish = family.stages_per_rank_varies && wanted > 1 && wanted % family.stages_multiple == 0;
    try {
      const PipelineRequest pipeline =
          pipeline_of_family(request, name, microbatches, wish ? std::optional<int>(wanted) : std::nullopt);
      comparison.answers.push_back({name, pipeline.verified->stages, microbatches,
                                    summarise(simulate(pipeline.verified, pipeline.cost)), pipeline.cost.memory_caps});
    } catch (const Error& error) {
      comparison.refused.push_back({name, first_line(error.what())});
    }
  }
  sort_by_bubble(comparison);
  Json schedules = Json::array();
  for (const SimulationAnswer& answer : comparison.answers)
    schedules.push_back({{"answer", answer_of(answer)}, {"figures", figures_of(answer)}});
  Json refused = Json::array();
  for (const RefusedSchedule& schedule : comparison.refused)
    refused.push_back({{"schedule", schedule.schedule}, {"reason", schedule.reason}});
  return print({{"schedules", schedules}, {"refused", refused}});
}

SweepPoint sweep_point(const Json& request, const std::string& name, int microbatches,
                       std::optional<int> stages_per_rank) {
  const PipelineRequest pipeline = pipeline_of_family(request, name, microbatches, stages_per_rank);
  const bool capped = !pipeline.cost.memory_caps.empty();
  const Timeline timeline = simulate(pipeline.verified, pipeline.cost, {.record_memory = capped});
  bool fits = true;
  for (std::int32_t rank = 0; capped && rank < pipeline.verified->ranks(); ++rank)
    fits = fits && peak_bytes(timeline, RankId{rank}) <= pipeline.cost.memory_caps[RankId{rank}.index()];
  return {name, pipeline.stages_per_rank, microbatches, makespan(timeline), fits};
}

std::string sweep(const Json& request) {
  const Samples samples = read_samples(request);
  if (samples.batch < 1)
    throw bad_input("a sweep without a number of samples", "batch, the samples of a minibatch", "correct the request");
  const Json names = request.value("schedules", Json::array());
  if (!names.is_array() || names.empty() || names.size() > schedule_families().size())
    throw bad_input("a sweep without schedules", "schedules, a list of names", "correct the request");
  const int wanted = read_count(request, "stages_per_rank", most_stages_per_rank, 0);
  std::vector<SweepPoint> points;
  Json refused = Json::array();
  for (const Json& name : names) {
    if (!name.is_string()) throw bad_input("a schedule that is no text", "a name", "correct the request");
    try {
      for (int count = 1; count <= std::min(samples.batch, most_microbatches); ++count)
        if (samples.batch % count == 0)
          points.push_back(sweep_point(request, name.get<std::string>(), count,
                                       wanted > 0 ? std::optional<int>(wanted) : std::nullopt));
    } catch (const Error& error) {
      refused.push_back({{"schedule", name}, {"reason", first_line(error.what())}});
    }
  }
  Json list = Json::array();
  bool any_fits = false;
  for (const SweepPoint& point : points) {
    any_fits = any_fits || point.fits;
    list.push_back({{"schedule", point.schedule},
                    {"stages_per_rank", point.stages_per_rank},
                    {"microbatches", point.microbatches},
                    {"step_ms", point.step.count},
                    {"step", fmt::format("{:.6g} ms", point.step.count)},
                    {"fits", point.fits}});
  }
  return print({{"points", list},
                {"refused", refused},
                {"sentence", any_fits ? sweep_sentence(points) : "no number of microbatches fits into the memory"}});
}

std::string synthesised(const Json& request) {
  const bool v = read_text(request, "placement").value_or("loop") == "v";
  SynthesisSettings settings;
  settings.ranks = read_count(request, "ranks", most_ranks);
  settings.microbatches = read_count(request, "microbatches", most_microbatches);
  const int per_rank = read_count(request, "stages_per_rank", most_stages_per_rank, v ? 2 : 1);
  check_passes(settings.ranks, per_rank, settings.microbatches);
  settings.placement =
      v ? wave_placement(settings.ranks, per_rank) : loop_placement(settings.ranks, settings.ranks * per_rank);
  if (request.contains("memory_cap") && !request["memory_cap"].is_null())
    settings.memory_caps = {read_count(request, "memory_cap", most_microbatches * most_stages_per_rank)};
  constexpr int most_evaluations = 1'000'000;
  // A number and not a time, so that a link shows everybody the same schedule.
  settings.most_evaluations = read_count(request, "evaluations", most_evaluations, 400);
  Schedule sizes{settings.ranks * per_rank, settings.microbatches, settings.placement, {}};
  sizes.actions.resize(static_cast<std::size_t>(settings.ranks));
  const Cost cost = read_cost(request, sizes, per_rank);
  const Synthesis synthesis = synthesise(settings, cost, SteadyClock());
  const PipelineRequest pipeline{"schedule.csv", per_rank, synthesis.schedule, cost};
  Json answer = answer_to_play(pipeline, synthesis.timeline);
  answer["csv"] = to_csv(synthesis.schedule.get());
  std::string found = fmt::format("longest span {:.6g} ms; ", synthesis.longest_span.count);
  found += synthesis.proved_optimal ? "no schedule of this placement under these caps has a shorter one"
                                    : fmt::format("none is below {:.6g} ms", synthesis.lower_bound.count);
  found += synthesis.best_generator.empty() ? "; no published schedule has this placement and keeps within the caps"
                                            : fmt::format("; the best published schedule, {}, has {:.6g} ms",
                                                          synthesis.best_generator, synthesis.generator_span.count);
  answer["found"] = found;
  return with_member(answer, "timeline", timeline_json(synthesis.timeline));
}

std::string verified(const Json& request) {
  const std::string csv = read_text(request, "csv").value_or("");
  const Schedule schedule = parse_schedule(csv);
  Json cells = Json::array();
  for (const auto& row : schedule.actions) {
    Json texts = Json::array();
    for (const Action& action : row) texts.push_back(action.kind == ActionKind::Idle ? "" : to_string(action));
    cells.push_back(std::move(texts));
  }
  Json answer = {{"correct", true},
                 {"ranks", schedule.ranks()},
                 {"stages", schedule.stages},
                 {"microbatches", schedule.microbatches}};
  try {
    static_cast<void>(verify(schedule));
  } catch (const Error& error) {
    answer["correct"] = false;
    answer["message"] = first_line(error.what());
    answer["details"] = error.what();
    answer["cells"] = std::move(cells);
  }
  return print(answer);
}

std::string measured(const Json& request) {
  const MeasuredRun run = read_measured(read_text(request, "trace").value_or(""));
  const Schedule& schedule = run.pipeline.verified.get();
  const Timeline predicted = simulate(run.pipeline.verified, run.pipeline.cost);
  const auto step = [&](const Timeline& timeline) {
    return with_member(answer_to_play(run.pipeline, timeline), "timeline", timeline_json(timeline));
  };
  const Json texts = {{"comparison", comparison_text(predicted, run.measured)}, {"csv", to_csv(schedule)}};
  const std::string both = with_member(texts, "measured", step(run.measured));
  return fmt::format("{},\"predicted\":{}}}", both.substr(0, both.size() - 1), step(predicted));
}

std::string planned(const Json& request) { return print(answer_to_plan(request)); }

struct Question {
  std::string_view ask;
  std::string (*answer)(const Json& request);
};

constexpr std::array questions{Question{"families", families},      Question{"play", play},
                               Question{"compare", compare},        Question{"sweep", sweep},
                               Question{"synthesise", synthesised}, Question{"verify", verified},
                               Question{"measured", measured},      Question{"plan", planned}};

std::string answer(std::string_view text) {
  const Json request = parse_request(text);
  const std::string ask = read_text(request, "ask").value_or("");
  for (const Question& question : questions)
    if (question.ask == ask) return question.answer(request);
  throw bad_input(fmt::format("ask is '{}'", shortened(ask)), "one of the questions of the explorer",
                  "correct the request");
}

}  // namespace

std::string explore(std::string_view request) {
  try {
    return answer(request);
  } catch (const std::exception& error) {
    // A defect of penstock's is an answer too: a page has nobody else to tell.
    const std::string message = error.what();
    return print({{"error", first_line(message)}, {"details", message}});
  }
}

}  // namespace penstock::explorer
