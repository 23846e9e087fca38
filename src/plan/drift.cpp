#include "penstock/plan/drift.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "penstock/base/error.h"
#include "penstock/base/quantile.h"

namespace penstock {
namespace {

// Those of the first steps are none of a running machine's; a few are needed for a median.
constexpr int passed_over = 2;
constexpr std::size_t looked_at = 7;

// By stage: what its passes took, for each microbatch.
std::vector<double> passes_of(const Timeline& step, std::size_t stages, int microbatches) {
  std::vector<double> passes(stages, 0);
  for (const auto& events : step.ranks)
    for (const Event& event : events)
      if (is_compute(event.action.kind) && event.action.stage.index() < stages)
        passes[event.action.stage.index()] += (event.end - event.start).count / microbatches;
  return passes;
}

}  // namespace

std::optional<std::string> DriftWatch::observe(const Timeline& step) {
  const std::vector<Milliseconds>& planned = plan_.prediction.stage_passes;
  if (reported_ || planned.empty() || ++seen_ <= passed_over) return std::nullopt;
  const std::vector<double> passes = passes_of(step, planned.size(), plan_.microbatches);
  last_.resize(planned.size());
  std::vector<double> measured;
  std::vector<double> ratios;
  std::vector<std::string> drifted;
  for (std::size_t stage = 0; stage < planned.size(); ++stage) {
    std::vector<double>& last = last_[stage];
    if (last.size() == looked_at) last.erase(last.begin());
    last.push_back(passes[stage]);
    measured.push_back(quantile(last, 0.5));
    ratios.push_back(measured.back() / planned[stage].count);
    const double off = ratios.back() - 1;
    if (last.size() == looked_at && std::abs(off) > share_)
      drifted.push_back(fmt::format("stage {} takes {} a microbatch, {} planned ({:+.0f} %)", stage,
                                    to_string(Milliseconds{measured.back()}), to_string(planned[stage]), off * 100));
  }
  if (drifted.empty()) return std::nullopt;
  reported_ = true;
  const double middle = quantile(ratios, 0.5);
  const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
  if (*most <= *least * (1 + share_))
    return fmt::format(
        "the machine is {} than when the layers were measured: a microbatch takes {:.2f} times as long as planned, on "
        "all "
        "stages alike; the cut fits as before, and what was predicted does not: measure the layers again",
        middle > 1 ? "slower" : "faster", middle);
  return fmt::format("the run drifts from its plan: {}{}", fmt::join(drifted, "; "), gain(measured));
}

// With the ranks as fast as they are.
std::string DriftWatch::gain(const std::vector<double>& measured) const {
  if (plan_.costs_file.empty() || plan_.replicas > 1) return "";
  try {
    const VerifiedSchedule schedule = schedule_of(plan_);
    LayerCosts costs = load_layer_costs(plan_.costs_file);
    costs.ranks.resize(static_cast<std::size_t>(plan_.ranks));
    std::vector<double> is(costs.ranks.size(), 0);
    std::vector<double> was = is;
    for (std::size_t stage = 0; stage < measured.size(); ++stage)
      for (const RankId holder : schedule->placement.holders.at(stage)) {
        is[holder.index()] += measured[stage];
        was[holder.index()] += plan_.prediction.stage_passes[stage].count;
      }
    for (std::size_t rank = 0; rank < is.size(); ++rank)
      if (is[rank] > 0 && was[rank] > 0) costs.ranks[rank].speed *= was[rank] / is[rank];
    PlanRequest request;
    request.ranks = plan_.ranks;
    request.batch = plan_.batch;
    request.most_plans = 1;
    // A training run waits for it.
    request.most_simulated_passes = 5'000'000;
    const Plan better = make_plans(costs, request).plans.front();
    const double now =
        (makespan(timeline_of(plan_, costs)) + plan_.prediction.exchange + plan_.prediction.update).count;
    const double saved = 1 - better.prediction.step.count / now;
    constexpr double worth_a_word = 0.01;
    if (saved < worth_a_word) return "; a new plan for these times would gain nothing to speak of";
    return fmt::format("; a new plan for these times ({}, {}) would make a step {:.0f} % shorter", better.schedule,
                       counted(better.microbatches, "microbatch"), saved * 100);
  } catch (const Error&) {
    return "";  // costs that are gone, or do not fit any more
  }
}

}  // namespace penstock
