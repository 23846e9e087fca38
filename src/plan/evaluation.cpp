#include "plan/evaluation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/cost/ledger.h"
#include "penstock/schedule/replicas.h"
#include "penstock/sim/passes.h"
#include "penstock/sim/simulate.h"

namespace penstock {
namespace {

/// The link between the ranks of two neighbouring stages, which may be one rank.
LinkCost link_of(const LayerCosts& costs, RankId from, RankId to) {
  return from == to ? LinkCost{} : link_between(costs, from, to);
}

double until_arrival(const LinkCost& link, Bytes size) {
  return link.latency.count + static_cast<double>(size.count) / link.bytes_per_millisecond;
}

/// From the begin of a step to the first action of each stage, and from the last backward of each to its end.
struct Slopes {
  std::vector<double> head;
  std::vector<double> tail;
};

Slopes slopes_of(const Cost& cost, const std::vector<std::int32_t>& rank_of, bool split_backward) {
  Slopes slopes{{0}, {0}};
  for (std::size_t stage = 0; stage + 1 < cost.stages.size(); ++stage) {
    const StageCost& stage_cost = cost.stages[stage];
    const RankId here{rank_of[stage]};
    const RankId next{rank_of[stage + 1]};
    const bool moves = here != next;
    const double forward = moves ? until_arrival(link_between(cost, here, next), stage_cost.boundary) : 0;
    const Bytes gradient = stage_cost.gradient_returns ? stage_cost.boundary : Bytes{};
    const double back = moves ? until_arrival(link_between(cost, next, here), gradient) : 0;
    slopes.head.push_back(slopes.head.back() + stage_cost.forward.count + forward);
    slopes.tail.push_back(slopes.tail.back() + back + stage_cost.input_backward.count +
                          (split_backward ? 0 : stage_cost.weight_backward.count));
  }
  return slopes;
}

/// For schedules in which each stage has one holder. \param overlaps whether it is a rank's own time that counts: its
/// work, and on the rank of the first stage the way of a microbatch there and back.
double pipeline_bound(const Cost& cost, const std::vector<std::int32_t>& rank_of, int ranks, int microbatches,
                      bool split_backward, bool one_at_a_time, bool overlaps) {
  const Slopes slopes = slopes_of(cost, rank_of, split_backward);
  const StageCost& last = cost.stages.back();
  const double alone = slopes.head.back() + last.forward.count + last.input_backward.count + slopes.tail.back();
  if (one_at_a_time) return alone * microbatches;
  std::vector<double> work(as_size(ranks), 0);
  std::vector<double> chain(work.size(), 0);  // the passes that a later pass of another rank waits for
  std::vector<std::size_t> first(work.size(), cost.stages.size());
  for (std::size_t stage = 0; stage < cost.stages.size(); ++stage) {
    const auto rank = as_index(rank_of[stage]);
    const double whole = duration_of_microbatch(cost.stages[stage]).count;
    work[rank] += whole;
    chain[rank] += split_backward ? whole - cost.stages[stage].weight_backward.count : whole;
    first[rank] = std::min(first[rank], stage);
  }
  double bound = alone;
  for (std::size_t rank = 0; rank < work.size(); ++rank) {
    if (first[rank] == cost.stages.size()) continue;
    const double head = slopes.head[first[rank]];
    bound = std::max({bound, (overlaps ? 0 : head) + microbatches * work[rank],
                      head + microbatches * chain[rank] + slopes.tail[first[rank]]});
  }
  return bound;
}

/// What a microbatch takes through all stages.
double work_of(const Cost& cost) {
  double work = 0;
  for (const StageCost& stage : cost.stages) work += duration_of_microbatch(stage).count;
  return work;
}

/// For schedules in which each stage has two holders, each of which takes half of the microbatches.
double bidirectional_bound(const Cost& cost, int ranks, int microbatches) {
  return work_of(cost) * std::max(1.0, static_cast<double>(microbatches) / ranks);
}

/// \param bound of ranks that take nothing from each other. Those that do are faster while others wait, but all
/// together compute most while none waits.
double contended_bound(const Cost& cost, int ranks, int microbatches, double bound) {
  if (!(cost.contention > 1) || ranks < 2) return bound;
  return std::max(bound / cost.contention, work_of(cost) * microbatches / ranks);
}

std::vector<std::int32_t> first_holders(const Placement& placement) {
  std::vector<std::int32_t> ranks;
  ranks.reserve(placement.holders.size());
  for (const auto& holders : placement.holders) ranks.push_back(holders.front().value);
  return ranks;
}

/// A cut that is given: its stages recompute where they do not fit otherwise, and where they may.
Division division_of(const DivisionProblem& problem, const Cut& cut) {
  Division division{cut, std::vector<bool>(cut.size(), problem.recomputation == Recomputation::Full)};
  for (std::size_t stage = 0; problem.recomputation == Recomputation::WhereNeeded && stage < cut.size(); ++stage)
    division.recomputed[stage] =
        memory_of_stage(problem, stage, as_index(cut[stage]), end_of(cut, stage, problem.layers->layers()), false) >
        problem.places[stage].cap;
  return division;
}

/// By how much a rank is above its cap, at least, and which: with its weights and activations alone. Costs a small part
/// of a simulation.
std::pair<double, std::size_t> least_excess(const PlanningProblem& problem, const Schedule& schedule,
                                            const Cost& cost) {
  std::pair<double, std::size_t> excess{0, 0};
  for (std::size_t rank = 0; rank < schedule.actions.size(); ++rank) {
    double held = 0;
    for (std::size_t stage = 0; stage < cost.stages.size(); ++stage)
      for (const RankId holder : schedule.placement.holders[stage])
        if (holder.index() == rank) held += static_cast<double>(memory_of_weights(cost.stages[stage]).count);
    double most = held;
    std::vector<bool> has_gradient(cost.stages.size());
    for (const Action& action : schedule.actions[rank]) {
      const std::optional<Pass> pass = pass_of(action.kind);
      if (!pass) continue;
      const StageCost& stage = entry(cost.stages, action.stage);
      const ActivationChange change = activation_change(stage, *pass);
      held += static_cast<double>((change.at_start + change.at_end).count);
      if (computes_weight_gradients(*pass) && !entry(has_gradient, action.stage)) {
        entry(has_gradient, action.stage) = true;
        held += static_cast<double>((stage.gradient + stage.kept_gradients).count);
      }
      most = std::max(most, held);
    }
    const double above = most - problem.cap(rank);
    if (above > excess.first) excess = {above, rank};
  }
  return excess;
}

/// The longest time of a rank from its first action to its update. Steps in a row follow each other at this pace or a
/// faster one: the same actions, each so much later, keep every rank's order.
Milliseconds longest_part(const Timeline& timeline, const std::vector<double>& exchange,
                          const std::vector<double>& update) {
  double longest = 0;
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    const std::vector<Event>& events = timeline.ranks[rank];
    if (events.empty()) continue;
    longest = std::max(longest, events.back().end.count - events.front().start.count + exchange[rank] + update[rank]);
  }
  return {longest};
}

/// Ring all-reduce of `size` among `copies`.
double exchange_time(const LinkCost& link, Bytes size, int copies) {
  if (copies < 2 || size.count == 0) return 0;
  const double steps = 2.0 * (copies - 1);
  return steps * (link.latency.count + static_cast<double>(size.count) / copies / link.bytes_per_millisecond);
}

int kept_gradients(const PlanRequest& request, const Configuration& configuration) {
  return gradient_runs(request.gradient_tree, configuration.replicas,
                       std::int64_t{configuration.replicas} * configuration.microbatches)
      .kept();
}

}  // namespace

Schedule schedule_of(const Configuration& configuration) {
  const FamilyShape& shape = *configuration.shape;
  return make_schedule(shape.family->name, configuration.ranks, configuration.microbatches,
                       shape.family->stages_per_rank_varies ? std::optional(shape.stages_per_rank) : std::nullopt);
}

std::int64_t passes_of(const Configuration& configuration) {
  return static_cast<std::int64_t>(configuration.stages()) * configuration.microbatches *
         (configuration.shape->split_backward ? 3 : 2);
}

DivisionProblem Evaluation::division_problem(const Configuration& configuration, bool split_backward) {
  const LayerCosts& costs = problem_.costs();
  DivisionProblem division;
  division.layers = &problem_.at(configuration.replicas, configuration.microbatches);
  division.split_backward = split_backward;
  division.kept_gradients = kept_gradients(problem_.request(), configuration);
  division.recomputation = problem_.request().recomputation;
  division.ties = configuration.shape->ties.get();
  const auto ranks = first_holders(configuration.shape->placement);
  for (std::size_t stage = 0; stage < ranks.size(); ++stage) {
    StagePlace place;
    place.speed = problem_.speed(as_index(ranks[stage]));
    if (stage + 1 < ranks.size()) place.to_next = link_of(costs, RankId{ranks[stage]}, RankId{ranks[stage + 1]});
    if (stage > 0) place.to_previous = link_of(costs, RankId{ranks[stage]}, RankId{ranks[stage - 1]});
    division.places.push_back(std::move(place));
  }
  return division;
}

Cost Evaluation::cost(const Configuration& configuration, const Division& division, bool split_backward) {
  const LayerCosts& costs = problem_.costs();
  const LayersAtSize& layers = problem_.at(configuration.replicas, configuration.microbatches);
  const CutRun run{division.recomputed, split_backward, first_holders(configuration.shape->placement),
                   kept_gradients(problem_.request(), configuration)};
  return {stages_of_cut(costs, layers, division.cut, run), costs.default_link, costs.links, {}, costs.contention};
}

const Division& Evaluation::unconstrained(const Configuration& configuration) {
  const FamilyShape& shape = *configuration.shape;
  // Families with the same placement share the division: a loop is identified by its stages, any other placement by its
  // family.
  const bool loop = shape.placement == loop_placement(configuration.ranks, configuration.stages());
  const DivisionKey key{configuration.replicas, configuration.microbatches, shape.split_backward,
                        loop ? nullptr : shape.family, shape.stages_per_rank};
  const auto known = unconstrained_.find(key);
  if (known != unconstrained_.end()) return known->second;
  const DivisionProblem problem = division_problem(configuration, shape.split_backward);
  Division division;
  if (problem_.request().cut) {
    division = {*problem_.request().cut,
                std::vector<bool>(problem.places.size(), problem.recomputation == Recomputation::Full)};
  } else {
    division = fastest_division(problem).value();
    if (shape.stages_per_rank > 1) even_out_ranks(problem, first_holders(shape.placement), division);
  }
  return unconstrained_.emplace(key, std::move(division)).first->second;
}

double Evaluation::bound(const Configuration& configuration) {
  const FamilyShape& shape = *configuration.shape;
  const Cost cost = this->cost(configuration, unconstrained(configuration), shape.split_backward);
  const double bound =
      shape.family->bidirectional
          ? bidirectional_bound(cost, configuration.ranks, configuration.microbatches)
          : pipeline_bound(cost, first_holders(shape.placement), configuration.ranks, configuration.microbatches,
                           shape.split_backward, shape.family->name == "naive", problem_.request().steps_overlap);
  return contended_bound(cost, configuration.ranks, configuration.microbatches, bound);
}

Candidate Evaluation::play(const Configuration& configuration, const VerifiedSchedule& schedule, Division division,
                           bool split_backward) {
  const LayersAtSize& layers = problem_.at(configuration.replicas, configuration.microbatches);
  const Cost cost = this->cost(configuration, division, split_backward);
  const Timeline timeline = simulate(schedule, cost, {.record_memory = problem_.capped()});
  simulated_passes_ += passes_of(configuration) * (problem_.capped() ? 2 : 1);
  Candidate candidate;
  candidate.configuration = configuration;
  PlanPrediction& prediction = candidate.prediction;
  prediction.pipeline = makespan(timeline);
  std::vector<double> update(as_size(configuration.ranks), 0);
  std::vector<double> exchange(update.size(), 0);
  for (std::size_t stage = 0; stage < division.cut.size(); ++stage) {
    const auto& holders = schedule->placement.holders[stage];
    const int copies = static_cast<int>(holders.size()) * configuration.replicas;
    const double all_reduce = exchange_time(cost.default_link, cost.stages[stage].gradient, copies);
    const double updating =
        layers.update(as_index(division.cut[stage]), end_of(division.cut, stage, layers.layers())).count;
    for (const RankId rank : holders) {
      entry(update, rank) += updating / problem_.speed(rank.index());
      entry(exchange, rank) += all_reduce;
    }
  }
  prediction.update = {*std::max_element(update.begin(), update.end())};
  add_tied_exchange(problem_.costs().ties, division.cut, schedule->placement, cost, exchange);
  prediction.exchange = {*std::max_element(exchange.begin(), exchange.end())};
  prediction.step = prediction.pipeline + prediction.exchange + prediction.update + problem_.costs().step_overhead;
  if (problem_.request().steps_overlap)
    prediction.step = longest_part(timeline, exchange, update) + problem_.costs().step_overhead;
  double busy = 0;
  for (std::int32_t rank = 0; rank < configuration.ranks; ++rank) {
    busy += busy_time(timeline, RankId{rank}).count;
    candidate.held += peak_activations(timeline, RankId{rank});
  }
  prediction.utilisation = busy / (configuration.ranks * prediction.step.count);
  prediction.samples_per_second = static_cast<double>(problem_.request().batch) / prediction.step.count * 1000;
  if (problem_.capped()) {
    for (std::int32_t rank = 0; rank < configuration.ranks; ++rank)
      prediction.memory.push_back(peak_bytes(timeline, RankId{rank}));
    add_tied_memory(problem_.costs().ties, division.cut, schedule->placement, cost, prediction.memory);
  }
  for (std::size_t rank = 0; rank < prediction.memory.size(); ++rank) {
    const double excess = static_cast<double>(prediction.memory[rank].count) - problem_.cap(rank);
    if (excess <= candidate.excess) continue;
    candidate.excess = excess;
    candidate.excess_rank = rank;
  }
  candidate.division = std::move(division);
  return candidate;
}

std::optional<Division> Evaluation::constrained(const Configuration& configuration, const Schedule& schedule,
                                                const std::vector<double>& caps) {
  DivisionProblem problem = division_problem(configuration, configuration.shape->split_backward);
  const auto held = held_microbatches(schedule);
  for (std::size_t stage = 0; stage < problem.places.size(); ++stage) {
    problem.places[stage].held = held[stage];
    problem.places[stage].cap = no_cap;
    for (const RankId rank : schedule.placement.holders[stage])
      problem.places[stage].cap = std::min(problem.places[stage].cap, entry(caps, rank));
  }
  if (problem_.request().cut) return division_of(problem, *problem_.request().cut);
  return fastest_division(problem);
}

/// A configuration's schedule, made when it is needed. A schedule of few microbatches has the same warm-up as one of
/// many, so that its counts are a lower bound for the long one, which need not be made yet.
class Evaluation::LazySchedule {
 public:
  LazySchedule(Evaluation& evaluation, const Configuration& configuration)
      : evaluation_(evaluation), configuration_(configuration) {
    constexpr int rounds = 3;
    if (configuration.microbatches <= rounds * configuration.ranks) return;
    auto& known = evaluation.short_schedules_[configuration.shape.get()];
    if (!known) {
      Configuration shorter = configuration;
      shorter.microbatches = rounds * configuration.ranks;
      known = std::make_unique<Schedule>(schedule_of(shorter));
    }
    shorter_ = known.get();
  }

  /// The whole one, or the shorter where that has not been asked for.
  const Schedule& for_counts() { return whole_ || shorter_ == nullptr ? whole().get() : *shorter_; }
  [[nodiscard]] bool is_whole() const { return whole_.has_value(); }
  const VerifiedSchedule& whole() {
    if (!whole_) {
      whole_ = verify(schedule_of(configuration_));
      evaluation_.simulated_passes_ += passes_of(configuration_);
    }
    return *whole_;
  }

 private:
  Evaluation& evaluation_;
  const Configuration& configuration_;
  const Schedule* shorter_ = nullptr;
  std::optional<VerifiedSchedule> whole_;
};

Candidate Evaluation::play_unless_full(const Configuration& configuration, LazySchedule& schedule,
                                       const Division& division) {
  const bool split = configuration.shape->split_backward;
  const Cost cost = this->cost(configuration, division, split);
  auto [excess, rank] = least_excess(problem_, schedule.for_counts(), cost);
  if (!(excess > 0) && !schedule.is_whole())
    std::tie(excess, rank) = least_excess(problem_, schedule.whole().get(), cost);
  if (!(excess > 0)) return play(configuration, schedule.whole(), division, split);
  Candidate candidate;
  candidate.configuration = configuration;
  candidate.division = division;
  candidate.excess = excess;
  candidate.excess_rank = rank;
  return candidate;
}

Candidate Evaluation::evaluate_within_caps(const Configuration& configuration) {
  LazySchedule schedule(*this, configuration);
  const bool one_stage = configuration.shape->stages_per_rank == 1 && !configuration.shape->family->bidirectional;
  std::vector<double> caps(as_size(configuration.ranks));
  for (std::size_t rank = 0; rank < caps.size(); ++rank) caps[rank] = problem_.cap(rank);
  Candidate nearest = play_unless_full(configuration, schedule, unconstrained(configuration));
  if (nearest.excess == 0) return nearest;
  const auto consider = [&](Candidate candidate) {
    if (candidate.excess < nearest.excess) nearest = std::move(candidate);
  };
  if (one_stage) {
    // Only a played schedule shows how many messages wait beside the activations: where they do not fit, there is so
    // much less room for these.
    constexpr int most_tries = 5;
    for (int attempt = 0; attempt < most_tries && nearest.excess > 0; ++attempt) {
      const bool counted_whole = schedule.is_whole();
      const auto division = constrained(configuration, schedule.for_counts(), caps);
      if (!division) break;
      Candidate candidate = play_unless_full(configuration, schedule, *division);
      if (counted_whole || !schedule.is_whole()) caps[candidate.excess_rank] -= candidate.excess;
      consider(std::move(candidate));
    }
    return nearest;
  }
  // Several stages share a rank, and are rarely all at their fullest at once: from a generous part for each to an equal
  // one.
  const int sharing = configuration.shape->stages_per_rank * (configuration.shape->family->bidirectional ? 2 : 1);
  for (const double generosity : {1.6, 1.3, 1.1, 1.0, 0.9}) {
    std::vector<double> parts = caps;
    for (double& part : parts) part *= generosity / sharing;
    if (const auto division = constrained(configuration, schedule.for_counts(), parts))
      consider(play_unless_full(configuration, schedule, *division));
    if (nearest.excess == 0) break;
  }
  return nearest;
}

Candidate Evaluation::evaluate(const Configuration& configuration) {
  if (problem_.capped()) return evaluate_within_caps(configuration);
  const VerifiedSchedule schedule = verify(schedule_of(configuration));
  simulated_passes_ += passes_of(configuration);
  return play(configuration, schedule, unconstrained(configuration), configuration.shape->split_backward);
}

Candidate Evaluation::evaluate_leanest(const Configuration& configuration) {
  const VerifiedSchedule schedule = verify(schedule_of(configuration));
  const bool split = configuration.shape->split_backward;
  DivisionProblem problem = division_problem(configuration, split);
  const auto held = held_microbatches(schedule.get());
  const int sharing = configuration.shape->stages_per_rank * (configuration.shape->family->bidirectional ? 2 : 1);
  for (std::size_t stage = 0; stage < problem.places.size(); ++stage) {
    problem.places[stage].held = held[stage];
    for (const RankId rank : schedule->placement.holders[stage])
      problem.places[stage].cap = std::min(problem.places[stage].cap, problem_.cap(rank.index()) / sharing);
  }
  const auto& cut = problem_.request().cut;
  return play(configuration, schedule, cut ? division_of(problem, *cut) : leanest_division(problem), split);
}

}  // namespace penstock
