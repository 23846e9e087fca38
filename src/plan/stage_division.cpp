#include "plan/stage_division.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

namespace penstock {
namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();

/// How good a stage is: what is to be small at the worst of the stages, and what in the sum of all.
struct Cell {
  double worst = infinite;
  double sum = 0;
  bool recomputed = false;
};

double occupied(const LinkCost& link, Bytes size) {
  return static_cast<double>(size.count) / link.bytes_per_millisecond;
}

double compute_time(const DivisionProblem& problem, std::size_t stage, std::size_t first, std::size_t end,
                    bool recomputed) {
  return problem.layers->time(first, end, {recomputed, problem.split_backward, problem.places[stage].speed}).count;
}

std::vector<bool> allowed_recomputation(Recomputation recomputation) {
  if (recomputation == Recomputation::None) return {false};
  if (recomputation == Recomputation::Full) return {true};
  return {false, true};
}

Cell fastest_cell(const DivisionProblem& problem, std::size_t stage, std::size_t first, std::size_t end) {
  for (const bool recomputed : allowed_recomputation(problem.recomputation)) {
    if (problem.places[stage].cap < infinite &&
        memory_of_stage(problem, stage, first, end, recomputed) > problem.places[stage].cap)
      continue;
    const double pace = pace_of_stage(problem, stage, first, end, recomputed);
    double sum = compute_time(problem, stage, first, end, recomputed);
    if (stage + 1 < problem.places.size())
      sum += 2 * occupied(problem.places[stage].to_next, problem.layers->boundary_after(end - 1));
    return {pace, sum, recomputed};
  }
  return {};
}

Cell leanest_cell(const DivisionProblem& problem, std::size_t stage, std::size_t first, std::size_t end) {
  Cell leanest;
  for (const bool recomputed : allowed_recomputation(problem.recomputation)) {
    const double excess =
        memory_of_stage(problem, stage, first, end, recomputed) - std::min(problem.places[stage].cap, 1e18);
    if (excess < leanest.worst) leanest = {excess, compute_time(problem, stage, first, end, recomputed), recomputed};
  }
  return leanest;
}

/// The best way for the first layers to make the first stages.
struct Best {
  double value = infinite;
  std::size_t start = 0;  ///< of the last of these stages
  bool recomputed = false;
};

/// Fills stage after stage, in one way to keep the ties, or null if there are none to keep. `join` makes the value
/// of a longer division from that of a shorter one and a cell; it is infinite where the two may not be joined.
/// `hopeless` says, of a stage that grows towards the front, that neither it nor a longer one can beat a value.
template <class CellOf, class Join, class Hopeless>
std::optional<Division> divide(const DivisionProblem& problem, const TieWay* way, const CellOf& cell_of,
                               const Join& join, const Hopeless& hopeless) {
  const std::size_t stages = problem.places.size();
  const std::size_t layers = problem.layers->layers();
  std::vector<std::vector<Best>> best(stages, std::vector<Best>(layers + 1));
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const std::size_t last_end = layers - (stages - 1 - stage);
    for (std::size_t end = stage + 1 == stages ? layers : stage + 1; end <= last_end; ++end) {
      Best& here = best[stage][end];
      for (std::size_t first = end; first-- > stage;) {
        if (hopeless(stage, first, end, here.value)) break;
        if (way != nullptr && !problem.ties->may_hold(*way, stage, first)) break;
        if (way != nullptr && !way->may_begin_stage.empty() && !way->may_begin_stage[first]) continue;
        if (stage == 0 && first > 0) continue;
        const double before = stage == 0 ? -infinite : best[stage - 1][first].value;
        if (before == infinite) continue;
        const Cell cell = cell_of(stage, first, end);
        const double value = join(before, cell);
        if (value < here.value) here = {value, first, cell.recomputed};
      }
    }
  }
  if (best.back()[layers].value == infinite) return std::nullopt;
  Division division{Cut(stages), std::vector<bool>(stages)};
  for (std::size_t stage = stages, end = layers; stage-- > 0;) {
    const Best& here = best[stage][end];
    division.cut[stage] = static_cast<std::int64_t>(here.start);
    division.recomputed[stage] = here.recomputed;
    end = here.start;
  }
  return division;
}

double worst_of(const DivisionProblem& problem, const Division& division) {
  double worst = 0;
  for (std::size_t stage = 0; stage < division.cut.size(); ++stage)
    worst = std::max(worst,
                     pace_of_stage(problem, stage, as_index(division.cut[stage]),
                                   end_of(division.cut, stage, problem.layers->layers()), division.recomputed[stage]));
  return worst;
}

}  // namespace

std::vector<std::vector<HeldMicrobatches>> held_microbatches(const Schedule& schedule) {
  std::vector<std::vector<HeldMicrobatches>> held(as_size(schedule.stages));
  const auto add = [](std::vector<HeldMicrobatches>& most, HeldMicrobatches now) {
    const auto covers = [](const HeldMicrobatches& a, const HeldMicrobatches& b) {
      return a.whole >= b.whole && a.for_weights >= b.for_weights;
    };
    if (std::any_of(most.begin(), most.end(), [&](const HeldMicrobatches& other) { return covers(other, now); }))
      return;
    std::erase_if(most, [&](const HeldMicrobatches& other) { return covers(now, other); });
    most.push_back(now);
  };
  for (const auto& actions : schedule.actions) {
    std::map<std::int32_t, HeldMicrobatches> now;
    for (const Action& action : actions) {
      HeldMicrobatches& counts = now[action.stage.value];
      if (action.kind == ActionKind::Forward) {
        ++counts.whole;
      } else if (action.kind == ActionKind::Backward) {
        --counts.whole;
      } else if (action.kind == ActionKind::InputBackward) {
        --counts.whole;
        ++counts.for_weights;
      } else if (action.kind == ActionKind::WeightBackward) {
        --counts.for_weights;
      }
      if (action.kind == ActionKind::Forward || action.kind == ActionKind::InputBackward)
        add(entry(held, action.stage), counts);
    }
  }
  return held;
}

double memory_of_stage(const DivisionProblem& problem, std::size_t stage, std::size_t first, std::size_t end,
                       bool recomputed) {
  const StageCost cost =
      problem.layers->stage(first, end, {recomputed, problem.split_backward, 1, true, problem.kept_gradients});
  StageBoundaries boundaries;
  if (stage > 0) boundaries.input = problem.layers->boundary_after(first - 1);
  if (stage + 1 < problem.places.size()) boundaries.output = cost.boundary;
  return estimated_peak(cost, problem.places[stage].held, boundaries);
}

double pace_of_stage(const DivisionProblem& problem, std::size_t stage, std::size_t first, std::size_t end,
                     bool recomputed) {
  const StagePlace& place = problem.places[stage];
  double pace = compute_time(problem, stage, first, end, recomputed);
  if (stage > 0 && problem.layers->gradient_returns(first - 1))
    pace = std::max(pace, occupied(place.to_previous, problem.layers->boundary_after(first - 1)));
  if (stage + 1 < problem.places.size())
    pace = std::max(pace, occupied(place.to_next, problem.layers->boundary_after(end - 1)));
  return pace;
}

namespace {

std::optional<Division> fastest_division(const DivisionProblem& problem, const TieWay* way) {
  const bool always = problem.recomputation == Recomputation::Full;
  const auto cell_of = [&](std::size_t stage, std::size_t first, std::size_t end) {
    return fastest_cell(problem, stage, first, end);
  };
  const auto least_time = [&](std::size_t stage, std::size_t first, std::size_t end) {
    return compute_time(problem, stage, first, end, always);
  };
  const auto fastest = divide(
      problem, way, cell_of, [](double before, const Cell& cell) { return std::max(before, cell.worst); },
      [&](std::size_t stage, std::size_t first, std::size_t end, double value) {
        return least_time(stage, first, end) >= value;
      });
  if (!fastest) return std::nullopt;
  // Among the divisions of that pace the one that does least besides: fewest recomputations and smallest messages, and
  // most on fast ranks.
  const double pace = worst_of(problem, *fastest) * (1 + 1e-12);
  return divide(
      problem, way, cell_of,
      [&](double before, const Cell& cell) {
        return cell.worst > pace ? infinite : (before == -infinite ? 0 : before) + cell.sum;
      },
      [&](std::size_t stage, std::size_t first, std::size_t end, double /*value*/) {
        return least_time(stage, first, end) > pace;
      });
}

std::optional<Division> leanest_division(const DivisionProblem& problem, const TieWay* way) {
  return divide(
      problem, way,
      [&](std::size_t stage, std::size_t first, std::size_t end) { return leanest_cell(problem, stage, first, end); },
      [](double before, const Cell& cell) { return std::max(before, cell.worst); },
      [](std::size_t, std::size_t, std::size_t, double) { return false; });
}

/// The worst and the sum of the cells of a division.
template <class CellOf>
std::pair<double, double> value_of(const DivisionProblem& problem, const Division& division, const CellOf& cell_of) {
  std::pair<double, double> value{-infinite, 0};
  for (std::size_t stage = 0; stage < division.cut.size(); ++stage) {
    const Cell cell =
        cell_of(problem, stage, as_index(division.cut[stage]), end_of(division.cut, stage, problem.layers->layers()));
    value = {std::max(value.first, cell.worst), value.second + cell.sum};
  }
  return value;
}

/// The best of all ways to keep the ties.
template <class Divide, class CellOf>
std::optional<Division> best_of_ways(const DivisionProblem& problem, const Divide& divide_in, const CellOf& cell_of) {
  if (problem.ties == nullptr) return divide_in(problem, nullptr);
  std::optional<Division> best;
  std::pair<double, double> least{infinite, infinite};
  for (const TieWay& way : problem.ties->ways()) {
    std::optional<Division> division = divide_in(problem, &way);
    if (!division) continue;
    const std::pair<double, double> value = value_of(problem, *division, cell_of);
    if (best && value >= least) continue;
    least = value;
    best = std::move(division);
  }
  return best;
}

}  // namespace

std::optional<Division> fastest_division(const DivisionProblem& problem) {
  return best_of_ways(
      problem, [](const DivisionProblem& same, const TieWay* way) { return fastest_division(same, way); },
      fastest_cell);
}

Division leanest_division(const DivisionProblem& problem) {
  const auto leanest = best_of_ways(
      problem, [](const DivisionProblem& same, const TieWay* way) { return leanest_division(same, way); },
      leanest_cell);
  check_invariant(leanest.has_value(), "as many layers as stages make no division");
  return *leanest;
}

void even_out_ranks(const DivisionProblem& problem, const std::vector<std::int32_t>& rank_of, Division& division) {
  const std::size_t layers = problem.layers->layers();
  const auto ranks = as_size(*std::max_element(rank_of.begin(), rank_of.end())) + 1;
  const auto load = [&](const Cut& cut) {
    std::vector<double> loads(ranks, 0);
    for (std::size_t stage = 0; stage < cut.size(); ++stage)
      entry(loads, rank_of[stage]) +=
          compute_time(problem, stage, as_index(cut[stage]), end_of(cut, stage, layers), division.recomputed[stage]);
    std::sort(loads.rbegin(), loads.rend());
    return loads;
  };
  std::vector<double> loads = load(division.cut);
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t stage = 1; stage < division.cut.size(); ++stage)
      for (const std::int64_t step : {-1, 1}) {
        Cut cut = division.cut;
        cut[stage] += step;
        if (cut[stage] <= cut[stage - 1] || cut[stage] >= static_cast<std::int64_t>(end_of(cut, stage, layers)))
          continue;
        if (problem.ties != nullptr && !problem.ties->are_kept_by(cut)) continue;
        std::vector<double> changed = load(cut);
        // Sorted, so that two ranks that are as busy are relieved one after the other.
        if (!(changed < loads)) continue;
        division.cut = std::move(cut);
        loads = std::move(changed);
        moved = true;
      }
  }
}

}  // namespace penstock
