#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/cost/comparable.h"
#include "penstock/plan/plan_layout.h"
#include "penstock/report/report.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

Bytes fullest(const Plan& plan) {
  return plan.prediction.memory.empty()
             ? Bytes{}
             : *std::max_element(plan.prediction.memory.begin(), plan.prediction.memory.end());
}

std::string times(Milliseconds value) { return fmt::format("{:.6g}", value.count); }

std::string change(double from, double to) { return fmt::format("{:+.1f} %", (to / from - 1) * 100); }

/// "zb-v, 2 stages a rank, 16 microbatches, recomputing layers 0-3".
std::string in_words(const Plan& plan) {
  std::string words = fmt::format("{}, {}", plan.schedule, counted(plan.microbatches, "microbatch"));
  if (plan.stages_per_rank > 1) words += fmt::format(", {} stages a rank", plan.stages_per_rank);
  if (plan.replicas > 1) words += fmt::format(", {} replicas", plan.replicas);
  const Recompute again = recompute_of(plan);
  if (again.kind() == Recompute::Full) words += ", recomputing all layers";
  if (again.kind() == Recompute::Layers) words += fmt::format(", recomputing layers {}", to_text(again));
  return words;
}

/// Step, its difference from the prediction, and memory of the fullest rank.
std::string measured_columns(const Plan& plan, const MeasuredPlan& measured) {
  const Bytes most =
      measured.memory.empty() ? Bytes{} : *std::max_element(measured.memory.begin(), measured.memory.end());
  return fmt::format("{:>13} {:>8} {:>12}  ", times(measured.step),
                     change(plan.prediction.step.count, measured.step.count), to_string(most));
}

std::string table(const std::vector<Plan>& plans, const std::vector<MeasuredPlan>& measured) {
  const std::string tried =
      measured.empty() ? "" : fmt::format("{:>13} {:>8} {:>12}  ", "measured (ms)", "", "measured mem");
  std::string text =
      fmt::format("{:>2}  {:<16} {:>6} {:>13} {:>12} {:>10} {:>11} {:>11}  {}{}\n", "#", "schedule", "stages",
                  "microbatches", "step (ms)", "computing", "samples/s", "memory", tried, "recompute");
  for (std::size_t index = 0; index < plans.size(); ++index) {
    const Plan& plan = plans[index];
    const Recompute recompute = recompute_of(plan);
    const std::string again = recompute.kind() == Recompute::Layers
                                  ? counted(std::count(plan.recomputed.begin(), plan.recomputed.end(), true), "stage")
                                  : to_text(recompute);
    const std::string columns =
        index < measured.size() ? measured_columns(plan, measured[index]) : std::string(tried.empty() ? 0 : 37, ' ');
    text += fmt::format("{:>2}  {:<16} {:>6} {:>13} {:>12} {:>8.1f} % {:>11.6g} {:>11}  {}{}{}\n", index + 1,
                        plan.schedule, plan.stages(), plan.microbatches, times(plan.prediction.step),
                        plan.prediction.utilisation * 100, plan.prediction.samples_per_second, to_string(fullest(plan)),
                        columns, again, plan.replicas > 1 ? fmt::format(", {} replicas", plan.replicas) : "");
  }
  return text;
}

std::string memory_line(const Plan& plan, const std::vector<std::optional<Bytes>>& caps) {
  constexpr std::size_t most_shown = 16;
  std::vector<std::string> ranks;
  const bool one_cap = !caps.empty() && caps.front() && std::equal(caps.begin() + 1, caps.end(), caps.begin());
  for (std::size_t rank = 0; rank < plan.prediction.memory.size() && rank < most_shown; ++rank) {
    ranks.push_back(to_string(plan.prediction.memory[rank]));
    if (!one_cap && rank < caps.size() && caps[rank]) ranks.back() += fmt::format(" of {}", to_string(*caps[rank]));
  }
  const std::size_t more = plan.prediction.memory.size() - ranks.size();
  return fmt::format("memory by rank{}: {}{}\n", one_cap ? fmt::format(", of {} each", to_string(*caps.front())) : "",
                     fmt::join(ranks, ", "),
                     more > 0 ? fmt::format(" and {} more", counted(static_cast<std::int64_t>(more), "rank")) : "");
}

/// Why a plan is slower than the first, or faster: because its ranks compute more or less, or because they wait more or
/// less.
std::string cause(const Plan& best, const Plan& other) {
  const auto computing = [](const Plan& plan) { return plan.prediction.step.count * plan.prediction.utilisation; };
  const auto waiting = [&](const Plan& plan) { return plan.prediction.step.count - computing(plan); };
  const double more_computing = computing(other) - computing(best);
  const double more_waiting = waiting(other) - waiting(best);
  constexpr double to_speak_of = 0.0005;
  const double ratio = other.prediction.step.count / best.prediction.step.count;
  if (std::abs(ratio - 1) <= to_speak_of) return "no difference to speak of";
  if (ratio < 1)
    return more_computing < more_waiting
               ? fmt::format("faster, as a rank computes {} less", to_string(Milliseconds{-more_computing}))
               : fmt::format("faster, as a rank waits {} less", to_string(Milliseconds{-more_waiting}));
  if (more_computing > more_waiting)
    return fmt::format("a rank computes {} longer{}", to_string(Milliseconds{more_computing}),
                       other.microbatches > best.microbatches ? ", as small microbatches are less efficient" : "");
  return fmt::format(
      "a rank waits {} longer{}", to_string(Milliseconds{more_waiting}),
      other.microbatches < best.microbatches ? ", as the pipeline fills and drains in larger pieces" : "");
}

/// The ranks of the two ends; of many ties the first.
std::string tie_lines(const Plan& plan) {
  constexpr std::size_t most_shown = 8;
  if (plan.ties.empty()) return "";
  const Placement placement = schedule_of(plan)->placement;
  const auto rank_of = [&](const LayerParameter& end) {
    const auto stage = std::upper_bound(plan.cut.begin(), plan.cut.end(), end.layer) - plan.cut.begin() - 1;
    return entry(placement.holders, stage).front().value;
  };
  std::string text;
  for (std::size_t index = 0; index < plan.ties.size() && index < most_shown; ++index) {
    const LayerTie& tie = plan.ties[index];
    const auto owner = rank_of(tie.owner);
    const auto copy = rank_of(tie.copy);
    text +=
        fmt::format("tied: {}, {}: {}\n", to_string(tie), to_string(tie.size),
                    owner != copy ? fmt::format("rank {} sends its gradient to rank {} and gets the sum", copy, owner)
                    : plan.shared_ties ? fmt::format("one parameter on rank {}", owner)
                                       : fmt::format("both on rank {}", owner));
  }
  if (plan.ties.size() > most_shown)
    text += fmt::format("and {} more\n", counted(std::ssize(plan.ties) - std::int64_t{most_shown}, "tie"));
  return text;
}

std::string reasons(const PlanReport& report) {
  const Plan& best = report.answer.plans.front();
  std::string text = fmt::format("{}: {} a step, in which a rank computes {:.1f} % of the time on average",
                                 in_words(best), to_string(best.prediction.step), best.prediction.utilisation * 100);
  if (best.prediction.update.count > 0) text += fmt::format("; the update takes {}", to_string(best.prediction.update));
  if (best.prediction.exchange.count > 0)
    text += fmt::format("; the exchange of gradients {}", to_string(best.prediction.exchange));
  text += "\n";
  for (const Alternative& other : report.neighbours)
    text +=
        fmt::format("  {} ({}): {}, {}: {}\n", other.what, in_words(other.plan), to_string(other.plan.prediction.step),
                    change(best.prediction.step.count, other.plan.prediction.step.count), cause(best, other.plan));
  return text;
}

/// Those of all replicas.
int all_ranks(const Plan& plan) { return plan.ranks * plan.replicas; }

/// "1 rank of 2 threads".
std::string ranks_of(const Plan& plan) {
  const std::string ranks = counted(all_ranks(plan), "rank");
  return plan.threads_per_rank > 0 ? fmt::format("{} of {}", ranks, counted(plan.threads_per_rank, "thread")) : ranks;
}

/// The truth, also where a pipeline does not pay.
std::string verdict_on(const PlanElsewhere& other, const Plan& best, double spread) {
  constexpr double alike = 1.03;
  if (std::max(spread, other.spread) >= incomparable_spread)
    return fmt::format(
        "the machine is too busy to compare it with the plan on {}: the times of the one are known to {:.1f} %, those "
        "of the other to {:.1f} %",
        ranks_of(best), other.spread * 100, spread * 100);
  const double faster = other.plan.prediction.step.count / best.prediction.step.count;
  if (faster > alike) return fmt::format("the plan on {} is {:.2f} times as fast", ranks_of(best), faster);
  if (1 / faster <= alike) return fmt::format("as fast as the plan on {}, within 3 %", ranks_of(best));
  const std::string_view loser = best.ranks > 1 ? "a pipeline does not pay here" : "replicas do not pay here";
  return fmt::format("{:.2f} times as fast as the plan on {}{}", 1 / faster, ranks_of(best),
                     all_ranks(other.plan) == 1 ? fmt::format(": {}", loser) : "");
}

std::string other_ranks(const PlanReport& report) {
  std::string text;
  for (const PlanElsewhere& other : report.on_other_ranks)
    text += fmt::format("  {} ({}): {} a step; {}\n", ranks_of(other.plan), in_words(other.plan),
                        to_string(other.plan.prediction.step),
                        verdict_on(other, report.answer.plans.front(), report.spread));
  return text.empty() ? text : "\nOn other numbers of ranks:\n" + text;
}

std::string changes(const PlanReport& report) {
  if (report.other_circumstances.empty()) return "";
  const Plan& best = report.answer.plans.front();
  std::string text = "\nWhat would change the answer:\n";
  for (const Alternative& other : report.other_circumstances) {
    const bool same = other.plan.schedule == best.schedule && other.plan.microbatches == best.microbatches &&
                      other.plan.recomputed == best.recomputed && other.plan.stages_per_rank == best.stages_per_rank &&
                      other.plan.replicas == best.replicas;
    text += fmt::format("  {}: {}, {} in samples a second\n", other.what, same ? "the same plan" : in_words(other.plan),
                        change(best.prediction.samples_per_second, other.plan.prediction.samples_per_second));
  }
  return text;
}

Json plan_to_json(const Plan& plan) {
  Json memory = Json::array();
  for (const Bytes bytes : plan.prediction.memory) memory.push_back(bytes.count);
  Json ties = Json::array();
  for (const LayerTie& tie : plan.ties)
    ties.push_back({{"owner", {{"layer", tie.owner.layer}, {"parameter", tie.owner.parameter}}},
                    {"copy", {{"layer", tie.copy.layer}, {"parameter", tie.copy.parameter}}},
                    {"bytes", tie.size.count}});
  Json object = {{"schedule", plan.schedule},
                 {"ranks", plan.ranks},
                 {"stages_per_rank", plan.stages_per_rank},
                 {"stages", plan.stages()},
                 {"replicas", plan.replicas},
                 {"gradient_tree", plan.gradient_tree},
                 {"batch", plan.batch},
                 {"microbatches", plan.microbatches},
                 {"cut", plan.cut},
                 {"recompute", to_text(recompute_of(plan))},
                 {"step_ms", plan.prediction.step.count},
                 {"pipeline_ms", plan.prediction.pipeline.count},
                 {"exchange_ms", plan.prediction.exchange.count},
                 {"update_ms", plan.prediction.update.count},
                 {"utilisation", plan.prediction.utilisation},
                 {"samples_per_second", plan.prediction.samples_per_second},
                 {"memory_bytes", memory},
                 {"ties", ties}};
  if (plan.threads_per_rank > 0) object["threads_per_rank"] = plan.threads_per_rank;
  return object;
}

Json measured_to_json(const MeasuredPlan& measured) {
  Json memory = Json::array();
  for (const Bytes bytes : measured.memory) memory.push_back(bytes.count);
  return {{"step_ms", measured.step.count}, {"utilisation", measured.utilisation}, {"memory_bytes", memory}};
}

Json alternatives_to_json(const std::vector<Alternative>& alternatives) {
  Json list = Json::array();
  for (const Alternative& other : alternatives)
    list.push_back({{"what", other.what}, {"plan", plan_to_json(other.plan)}});
  return list;
}

}  // namespace

std::string to_text(const PlanReport& report) {
  const PlanAnswer& answer = report.answer;
  const Plan& best = answer.plans.front();
  std::string text = table(answer.plans, report.measured);
  text += fmt::format(
      "\n{} of schedule, stages and microbatches: {} simulated, {} skipped (cannot beat the best), {} exceed "
      "the memory\n",
      counted(answer.configurations, "configuration"), answer.simulated, answer.bounded_away, answer.over_memory);
  text += fmt::format("\nfirst layers of the stages: {}\n", fmt::join(best.cut, ","));
  text += memory_line(best, report.memory_caps);
  text += tie_lines(best);
  if (!report.measured.empty())
    text += fmt::format("tried {} for a few steps each: the order is that of what was measured\n",
                        counted(std::ssize(report.measured), "plan"));
  text += '\n';
  text += reasons(report);
  if (!report.sweep.empty())
    text += fmt::format("\nsweep over the microbatches: {}{}\n", sweep_sentence(report.sweep),
                        report.spread > 0 ? fmt::format("; times are known to {:.1f} %", report.spread * 100) : "");
  text += other_ranks(report);
  text += changes(report);
  for (const std::string& note : answer.notes)
    text += fmt::format("{}{}\n", &note == &answer.notes.front() ? "\n" : "", note);
  return text;
}

std::string to_json(const PlanReport& report) {
  Json plans = Json::array();
  for (const Plan& plan : report.answer.plans) plans.push_back(plan_to_json(plan));
  for (std::size_t index = 0; index < report.measured.size(); ++index)
    plans[index]["measured"] = measured_to_json(report.measured[index]);
  Json sweep = Json::array();
  for (const SweepPoint& point : report.sweep)
    sweep.push_back({{"schedule", point.schedule},
                     {"stages_per_rank", point.stages_per_rank},
                     {"microbatches", point.microbatches},
                     {"step_ms", point.step.count},
                     {"fits", point.fits}});
  Json document = {{"plans", plans},
                   {"neighbours", alternatives_to_json(report.neighbours)},
                   {"other_circumstances", alternatives_to_json(report.other_circumstances)},
                   {"configurations", report.answer.configurations},
                   {"simulated", report.answer.simulated},
                   {"bounded_away", report.answer.bounded_away},
                   {"over_memory", report.answer.over_memory},
                   {"left_out", report.answer.left_out},
                   {"notes", report.answer.notes}};
  if (!report.sweep.empty()) document["sweep"] = sweep;
  if (report.spread > 0) document["spread"] = report.spread;
  for (const PlanElsewhere& other : report.on_other_ranks) {
    Json plan = plan_to_json(other.plan);
    if (other.spread > 0) plan["spread"] = other.spread;
    document["on_other_ranks"].push_back(plan);
  }
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace penstock
