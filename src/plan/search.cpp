#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/base/types.h"
#include "penstock/cost/ledger.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/replicas.h"
#include "penstock/sim/simulate.h"
#include "penstock/synthesis/synthesise.h"

#include "plan/evaluation.h"
#include "plan/find_plans.h"
#include "plan/refine.h"
#include "plan/shortfall.h"

namespace penstock {
namespace {

/// The share of the passes that may be simulated which the configurations may take; the rest is for what is done to the
/// best of them.
constexpr double share_of_configurations = 0.6;
constexpr double share_of_refinement = 0.3;
/// The share for each synthesis, whose evaluations take less time than simulations.
constexpr double share_of_synthesis = 0.4;

bool wants(const PlanRequest& request, std::string_view name) {
  return request.schedules.empty() ||
         std::find(request.schedules.begin(), request.schedules.end(), name) != request.schedules.end();
}

/// If two steps differ by less than a nanosecond, the one that holds fewer activations comes first: it leaves more of
/// the caches to the passes.
bool faster(const Candidate& a, const Candidate& b) {
  const auto key = [](const Candidate& candidate) {
    constexpr double nanoseconds = 1e6;
    return std::pair(std::llround(candidate.prediction.step.count * nanoseconds), candidate.held);
  };
  return key(a) < key(b);
}

Plan plan_of(PlanningProblem& problem, const Candidate& candidate) {
  const Configuration& configuration = candidate.configuration;
  Plan plan;
  plan.ranks = configuration.ranks;
  plan.replicas = configuration.replicas;
  plan.batch = problem.request().batch;
  plan.microbatches = configuration.microbatches;
  plan.schedule = candidate.schedule_csv.empty() ? std::string(configuration.shape->family->name)
                                                 : std::string(synthesised_schedule);
  plan.stages_per_rank = configuration.shape->stages_per_rank;
  plan.schedule_csv = candidate.schedule_csv;
  plan.layers = std::ssize(problem.costs().layers);
  plan.cut = candidate.division.cut;
  plan.recomputed = candidate.division.recomputed;
  plan.prediction = candidate.prediction;
  plan.ties = problem.given_costs().ties;
  plan.shared_ties = problem.request().share_ties;
  plan.gradient_tree = problem.request().gradient_tree;
  return plan;
}

class Search {
 public:
  explicit Search(PlanningProblem& problem) : problem_(problem), evaluation_(problem) {}

  /// Nothing if nothing fits.
  std::optional<PlanAnswer> run() {
    answer_.notes.clear();
    std::vector<Configuration> configurations = problem_.configurations(answer_.notes);
    if (configurations.empty())
      throw bad_input("no schedule that fits the request", "one that these ranks, layers and this cut allow",
                      "allow more of `schedule`, `stages_per_rank` and `microbatches`");
    answer_.configurations = std::ssize(configurations);
    for (Configuration& configuration : configurations) configuration.bound = evaluation_.bound(configuration);
    std::stable_sort(configurations.begin(), configurations.end(),
                     [](const Configuration& a, const Configuration& b) { return a.bound < b.bound; });
    look_at(configurations);
    if (best_.empty()) look_for_the_leanest(configurations);
    if (best_.empty()) return std::nullopt;
    improve_the_best();
    synthesise_for_the_best();
    finish();
    return std::move(answer_);
  }

  /// Why nothing fits.
  [[nodiscard]] Error shortfall() const { return shortfall_.error(problem_); }

 private:
  [[nodiscard]] const PlanRequest& request() const { return problem_.request(); }
  [[nodiscard]] std::int64_t passes_left(double share) const {
    return static_cast<std::int64_t>(static_cast<double>(request().most_simulated_passes) * share) -
           evaluation_.simulated_passes();
  }
  /// Refinement changes their order, so that a few are kept even where one is wanted, and more of those that are played
  /// in no time.
  [[nodiscard]] std::size_t surely_kept() const { return std::max<std::size_t>(request().most_plans, 6); }
  [[nodiscard]] bool is_small(const Configuration& configuration) const {
    constexpr std::int64_t small_part = 5000;
    return passes_of(configuration) * small_part <= request().most_simulated_passes;
  }
  /// A step that is no shorter is not kept.
  [[nodiscard]] double limit_for(const Configuration& configuration) const {
    if (best_.size() < surely_kept()) return no_cap;
    constexpr double in_reach = 1.25;  // of refinement
    const double last = best_[surely_kept() - 1].prediction.step.count;
    return is_small(configuration) ? std::max(last, in_reach * best_.front().prediction.step.count) : last;
  }

  void look_at(const std::vector<Configuration>& configurations) {
    for (const Configuration& configuration : configurations) {
      if (configuration.bound >= limit_for(configuration)) {
        ++answer_.bounded_away;
        continue;
      }
      if (passes_left(share_of_configurations) < passes_of(configuration) && answer_.simulated > 0) {
        ++answer_.left_out;
        continue;
      }
      ++answer_.simulated;
      Candidate candidate = evaluation_.evaluate(configuration);
      if (candidate.excess > 0) {
        ++answer_.over_memory;
        continue;
      }
      keep(std::move(candidate));
    }
  }

  void keep(Candidate candidate) {
    best_.insert(std::upper_bound(best_.begin(), best_.end(), candidate, faster), std::move(candidate));
    constexpr std::size_t most_in_reach = 32;
    while (best_.size() > surely_kept() &&
           (best_.size() > surely_kept() + most_in_reach ||
            best_.back().prediction.step.count >= limit_for(best_.back().configuration)))
      best_.pop_back();
  }

  /// Only where nothing fits that was to be fast: the cuts that take least, from the most microbatches on.
  void look_for_the_leanest(std::vector<Configuration> configurations) {
    std::stable_sort(configurations.begin(), configurations.end(), [](const Configuration& a, const Configuration& b) {
      return a.microbatches * a.replicas > b.microbatches * b.replicas;
    });
    constexpr int most_of_a_shape = 2;
    std::map<const FamilyShape*, int> tried;
    for (const Configuration& configuration : configurations) {
      if (tried[configuration.shape.get()]++ >= most_of_a_shape) continue;
      if (shortfall_.is_known() && passes_left(1) < passes_of(configuration)) continue;
      Candidate candidate = evaluation_.evaluate_leanest(configuration);
      if (candidate.excess > 0)
        shortfall_.consider(candidate);
      else
        keep(std::move(candidate));
    }
  }

  void improve_the_best() {
    // The later candidates may use what the first ones left of the effort.
    for (std::size_t begin = 0; begin < best_.size();) {
      const std::size_t end = begin == 0 ? std::min(surely_kept(), best_.size()) : best_.size();
      const std::int64_t left = passes_left(share_of_configurations + share_of_refinement);
      const std::int64_t each = std::max<std::int64_t>(left / static_cast<std::int64_t>(end - begin), 0);
      for (; begin < end; ++begin) refine(evaluation_, each, best_[begin]);
    }
    std::stable_sort(best_.begin(), best_.end(), faster);
    best_.resize(std::min(best_.size(), surely_kept()));
  }

  /// For the placements of the best plans with one holder a stage, in place of their schedules.
  void synthesise_for_the_best() {
    if (!wants(request(), synthesised_schedule)) return;
    std::vector<Candidate> found;
    std::vector<Placement> tried;
    for (const Candidate& candidate : best_) {
      const Placement& placement = candidate.configuration.shape->placement;
      if (candidate.configuration.shape->family->bidirectional || candidate.configuration.ranks < 2 ||
          std::find(tried.begin(), tried.end(), placement) != tried.end())
        continue;
      tried.push_back(placement);
      if (auto synthesised = synthesise_for(candidate)) found.push_back(std::move(*synthesised));
    }
    const bool only = !request().schedules.empty() &&
                      std::all_of(request().schedules.begin(), request().schedules.end(),
                                  [](const std::string& name) { return name == synthesised_schedule; });
    if (only) best_.clear();
    for (Candidate& candidate : found) keep(std::move(candidate));
    if (best_.empty())
      throw bad_input("nothing to synthesise for these costs",
                      fmt::format("at most {} passes a step, and no more kept after I than before it where memory is "
                                  "capped",
                                  most_passes),
                      "allow published schedules with `schedule`");
  }

  std::optional<Candidate> synthesise_for(const Candidate& candidate) {
    const double passes_of_search = share_of_synthesis * static_cast<double>(request().most_simulated_passes);
    const Configuration& configuration = candidate.configuration;
    const std::int64_t passes = std::int64_t{3} * configuration.stages() * configuration.microbatches;
    if (passes > most_passes) return std::nullopt;
    Cost cost = evaluation_.cost(configuration, candidate.division, /*split_backward=*/true);
    if (problem_.capped()) {
      for (std::size_t rank = 0; rank < as_size(configuration.ranks); ++rank)
        cost.memory_caps.push_back({static_cast<std::int64_t>(std::min(problem_.cap(rank), 4e18))});
      for (const StageCost& stage : cost.stages)
        if (stage.weight_activation_share > 1) return std::nullopt;
    }
    SynthesisSettings settings;
    settings.ranks = configuration.ranks;
    settings.microbatches = configuration.microbatches;
    settings.placement = configuration.shape->placement;
    settings.most_evaluations = std::llround(std::clamp(passes_of_search / static_cast<double>(passes), 20.0, 2000.0));
    try {
      const Synthesis synthesis = synthesise(settings, cost, SteadyClock());
      Candidate played =
          evaluation_.play(configuration, synthesis.schedule, candidate.division, /*split_backward=*/true);
      if (played.excess > 0) return std::nullopt;
      // A file in place of a name has to be worth it, unless it was asked for.
      constexpr double worth_it = 0.999;
      if (request().schedules.empty() && played.prediction.step.count > candidate.prediction.step.count * worth_it)
        return std::nullopt;
      played.schedule_csv = to_csv(synthesis.schedule.get());
      return played;
    } catch (const Error&) {
      return std::nullopt;  // caps that its search does not meet: a published schedule does
    }
  }

  [[nodiscard]] std::vector<Milliseconds> stage_passes(const Candidate& candidate) {
    const bool split = candidate.configuration.shape->split_backward || !candidate.schedule_csv.empty();
    std::vector<Milliseconds> passes;
    for (const StageCost& stage : evaluation_.cost(candidate.configuration, candidate.division, split).stages)
      passes.push_back(duration_of_microbatch(stage));
    return passes;
  }

  [[nodiscard]] std::vector<Bytes> memory_of(const Plan& plan) {
    const VerifiedSchedule schedule = schedule_of(plan);
    const Cost cost = cost_of(plan, problem_.given_costs());
    const Timeline timeline = simulate(schedule, cost);
    std::vector<Bytes> memory;
    memory.reserve(as_size(plan.ranks));
    for (std::int32_t rank = 0; rank < plan.ranks; ++rank) memory.push_back(peak_bytes(timeline, RankId{rank}));
    add_tied_memory(problem_.costs().ties, plan.cut, schedule->placement, cost, memory);
    return memory;
  }

  void finish() {
    best_.resize(std::min(best_.size(), std::max<std::size_t>(request().most_plans, 1)));
    for (const Candidate& candidate : best_) {
      Plan plan = plan_of(problem_, candidate);
      plan.prediction.stage_passes = stage_passes(candidate);
      if (plan.prediction.memory.empty()) plan.prediction.memory = memory_of(plan);
      answer_.plans.push_back(std::move(plan));
    }
    if (answer_.left_out > 0)
      answer_.notes.push_back(
          fmt::format("{} were not simulated: the effort was spent on others whose bounds are lower",
                      counted(answer_.left_out, "configuration")));
    constexpr double worth_saying = 1.05;
    if (best_.front().configuration.ranks > 1 && problem_.costs().contention >= worth_saying)
      answer_.notes.push_back(
          fmt::format("the ranks share a machine: while all compute, each takes {:.2f} times as long as alone; the "
                      "prediction has them faster while others wait",
                      problem_.costs().contention));
  }

  static constexpr std::int64_t most_passes = 60'000;  // that a synthesis is tried for

  PlanningProblem& problem_;
  Evaluation evaluation_;
  std::vector<Candidate> best_;  ///< fastest first
  Shortfall shortfall_;
  PlanAnswer answer_;
};

Cost cost_for(const Plan& plan, const Schedule& schedule, const LayerCosts& costs) {
  CutRun run;
  run.recomputed = plan.recomputed;
  run.split_backward = has_split_backward(schedule);
  for (const auto& holders : schedule.placement.holders) run.ranks.push_back(holders.front().value);
  run.kept_gradients =
      gradient_runs(plan.gradient_tree, plan.replicas, std::int64_t{plan.replicas} * plan.microbatches).kept();
  Cost cost = cost_of_cut(plan.shared_ties && !costs.ties.empty() ? with_shared_ties(costs) : costs, plan.cut,
                          plan.samples(), run);
  // Ranks of replicas are alike, and the first replica stands for all.
  if (!cost.memory_caps.empty()) cost.memory_caps.resize(as_size(plan.ranks));
  return cost;
}

}  // namespace

PlanAnswer make_plans(const LayerCosts& costs, const PlanRequest& request) {
  PlanningProblem problem(costs, request);
  Search search(problem);
  std::optional<PlanAnswer> answer = search.run();
  if (!answer) throw search.shortfall();
  return std::move(*answer);
}

std::optional<PlanAnswer> find_plans(const LayerCosts& costs, const PlanRequest& request) {
  PlanningProblem problem(costs, request);
  return Search(problem).run();
}

VerifiedSchedule schedule_of(const Plan& plan) {
  if (!plan.schedule_csv.empty()) return verify(parse_schedule(plan.schedule_csv));
  const bool varies = schedule_family(plan.schedule).stages_per_rank_varies;
  return verify(make_schedule(plan.schedule, plan.ranks, plan.microbatches,
                              varies ? std::optional(plan.stages_per_rank) : std::nullopt));
}

Cost cost_of(const Plan& plan, const LayerCosts& costs) { return cost_for(plan, schedule_of(plan).get(), costs); }

Timeline timeline_of(const Plan& plan, const LayerCosts& costs) {
  const VerifiedSchedule schedule = schedule_of(plan);
  return simulate(schedule, cost_for(plan, schedule.get(), costs));
}

std::vector<SweepPoint> sweep_plans(const LayerCosts& costs, const PlanRequest& request) {
  PlanningProblem problem(costs, request);
  Evaluation evaluation(problem);
  std::vector<std::string> notes;
  std::vector<Configuration> configurations = problem.configurations(notes);
  std::vector<SweepPoint> points;
  // Small ones first, so that every schedule gets its part of the effort.
  std::stable_sort(configurations.begin(), configurations.end(),
                   [](const Configuration& a, const Configuration& b) { return a.microbatches < b.microbatches; });
  for (const Configuration& configuration : configurations) {
    if (configuration.replicas > 1 ||
        evaluation.simulated_passes() + passes_of(configuration) > request.most_simulated_passes)
      continue;
    Candidate candidate = evaluation.evaluate(configuration);
    const bool fits = candidate.excess == 0;
    // What does not fit may not have been played.
    if (!fits)
      candidate = evaluation.play(configuration, verify(schedule_of(configuration)), candidate.division,
                                  configuration.shape->split_backward);
    points.push_back({std::string(configuration.shape->family->name), configuration.shape->stages_per_rank,
                      configuration.microbatches, candidate.prediction.step, fits});
  }
  std::stable_sort(points.begin(), points.end(), [](const SweepPoint& a, const SweepPoint& b) {
    return std::tie(a.schedule, a.stages_per_rank, a.microbatches) <
           std::tie(b.schedule, b.stages_per_rank, b.microbatches);
  });
  return points;
}

}  // namespace penstock
