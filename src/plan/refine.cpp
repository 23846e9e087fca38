#include "plan/refine.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "penstock/base/index.h"

#include "plan/block_partition.h"

namespace penstock {
namespace {

constexpr std::int64_t most_cuts = 2000;

/// The number of cuts, or more than `most_cuts`.
std::int64_t number_of_cuts(std::int64_t layers, int stages) {
  std::int64_t count = 1;
  for (std::int64_t chosen = 1; chosen < stages && count <= most_cuts; ++chosen)
    count = count * (layers - chosen) / chosen;
  return count;
}

/// The next cut in lexicographic order, or false after the last.
bool next_cut(Cut& cut, std::int64_t layers) {
  for (std::size_t stage = cut.size(); stage-- > 1;) {
    const auto behind = static_cast<std::int64_t>(cut.size() - stage);
    if (cut[stage] >= layers - behind) continue;
    ++cut[stage];
    for (std::size_t later = stage + 1; later < cut.size(); ++later) cut[later] = cut[later - 1] + 1;
    return true;
  }
  return false;
}

class Refinement {
 public:
  Refinement(Evaluation& evaluation, std::int64_t most_passes, Candidate& candidate)
      : evaluation_(evaluation),
        most_passes_(evaluation.simulated_passes() + most_passes),
        candidate_(candidate),
        schedule_(verify(schedule_of(candidate.configuration))),
        split_(candidate.configuration.shape->split_backward),
        problem_(evaluation.division_problem(candidate.configuration, split_)) {
    if (!evaluation.problem().capped()) return;
    const auto held = held_microbatches(schedule_.get());
    for (std::size_t stage = 0; stage < problem_.places.size(); ++stage) problem_.places[stage].held = held[stage];
    one_stage_ =
        candidate.configuration.shape->stages_per_rank == 1 && !candidate.configuration.shape->family->bidirectional;
  }

  void run() {
    for (const Cut& cut : cuts_of_others()) consider(cut);
    const auto layers = static_cast<std::int64_t>(problem_.layers->layers());
    const std::int64_t cuts = number_of_cuts(layers, static_cast<int>(problem_.places.size()));
    if (cuts <= most_cuts &&
        cuts * passes_of(candidate_.configuration) <= most_passes_ - evaluation_.simulated_passes())
      try_all(layers);
    else
      climb(layers);
  }

 private:
  [[nodiscard]] std::vector<Cut> cuts_of_others() const {
    const auto stages = static_cast<int>(problem_.places.size());
    std::vector<double> times;
    std::vector<std::int64_t> parameters;
    for (std::size_t layer = 0; layer < problem_.layers->layers(); ++layer) {
      times.push_back(problem_.layers->time(layer, layer + 1, {false, split_, 1}).count);
      parameters.push_back(problem_.layers->stage(layer, layer + 1, {false, split_, 1}).parameter.count);
    }
    return {uniform_cut(std::ssize(times), stages), balanced_cut(parameters, stages),
            block_partition_cut(times, stages)};
  }

  /// Which stages of another cut recompute: those that do not fit otherwise, where that can be told.
  [[nodiscard]] std::vector<bool> recomputed(const Cut& cut) const {
    if (problem_.recomputation != Recomputation::WhereNeeded || !one_stage_) return candidate_.division.recomputed;
    std::vector<bool> needed(cut.size());
    for (std::size_t stage = 0; stage < cut.size(); ++stage)
      needed[stage] =
          memory_of_stage(problem_, stage, as_index(cut[stage]), end_of(cut, stage, problem_.layers->layers()), false) >
          evaluation_.problem().cap(stage);
    return needed;
  }

  /// Plays the cut, unless its slowest stage alone makes it as long as the best; keeps it where it is better.
  bool consider(const Cut& cut) {
    if (cut == candidate_.division.cut || evaluation_.simulated_passes() >= most_passes_) return false;
    if (std::adjacent_find(cut.begin(), cut.end(), std::greater_equal<>()) != cut.end()) return false;
    if (problem_.ties != nullptr && !problem_.ties->are_kept_by(cut)) return false;
    Division division{cut, recomputed(cut)};
    double slowest = 0;
    for (std::size_t stage = 0; stage < cut.size(); ++stage)
      slowest =
          std::max(slowest, pace_of_stage(problem_, stage, as_index(cut[stage]),
                                          end_of(cut, stage, problem_.layers->layers()), division.recomputed[stage]));
    // If a stage has two holders, each does a half.
    const double share = candidate_.configuration.shape->family->bidirectional ? 0.5 : 1;
    if (slowest * share * candidate_.configuration.microbatches >= candidate_.prediction.step.count) return false;
    Candidate other = evaluation_.play(candidate_.configuration, schedule_, std::move(division), split_);
    if (other.excess > candidate_.excess || !(other.prediction.step < candidate_.prediction.step)) return false;
    candidate_ = std::move(other);
    return true;
  }

  void try_all(std::int64_t layers) {
    Cut cut;
    for (std::int64_t stage = 0; stage < std::ssize(problem_.places); ++stage) cut.push_back(stage);
    do {
      consider(cut);
    } while (next_cut(cut, layers));
  }

  void climb(std::int64_t layers) {
    for (bool better = true; better && evaluation_.simulated_passes() < most_passes_;) {
      better = false;
      for (std::size_t stage = 1; stage < problem_.places.size(); ++stage)
        for (const std::int64_t step : {-1, 1}) {
          Cut cut = candidate_.division.cut;
          cut[stage] += step;
          if (cut[stage] < layers && consider(cut)) better = true;
        }
    }
  }

  Evaluation& evaluation_;
  std::int64_t most_passes_;
  Candidate& candidate_;
  VerifiedSchedule schedule_;
  bool split_;
  bool one_stage_ = false;
  DivisionProblem problem_;
};

}  // namespace

void refine(Evaluation& evaluation, std::int64_t most_passes, Candidate& candidate) {
  if (candidate.configuration.stages() < 2 || evaluation.problem().request().cut || !candidate.schedule_csv.empty())
    return;
  Refinement(evaluation, most_passes, candidate).run();
}

}  // namespace penstock
