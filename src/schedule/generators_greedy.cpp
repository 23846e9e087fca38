#include <algorithm>

#include "penstock/base/index.h"
#include "penstock/schedule/generators.h"

#include "schedule/generator_base.h"
#include "schedule/greedy.h"

namespace penstock {

Schedule chimera_schedule(int ranks, int microbatches) {
  check_sizes(ranks, 1, microbatches);
  Schedule schedule = empty_schedule(ranks, microbatches, bidirectional_placement("chimera", ranks));
  const auto rank_of = [ranks](int stage, int way) { return way == 0 ? stage : ranks - 1 - stage; };
  // The paper puts its pictures together with equal times, and p / 2 microbatches into each direction.
  schedule.actions = play_greedily({.ranks = ranks,
                                    .stages = ranks,
                                    .microbatches = microbatches,
                                    .ways = 2,
                                    .rank_of = rank_of,
                                    .entry_cap = ranks / 2,
                                    .forward_time = 1,
                                    .backward_time = 1});
  return schedule;
}

Schedule hanayo_schedule(int ranks, int stages_per_rank, int microbatches) {
  check_sizes(ranks, stages_per_rank, microbatches);
  check_waves(stages_per_rank);
  Schedule schedule = empty_schedule(ranks, microbatches, wave_placement(ranks, stages_per_rank));
  const auto rank_of = [&schedule](int stage, int) { return entry(schedule.placement.holders, stage).front().value; };
  // The paper draws p microbatches; with more, a quarter above p keeps the waves from running dry in between.
  schedule.actions = play_greedily({.ranks = ranks,
                                    .stages = schedule.stages,
                                    .microbatches = microbatches,
                                    .ways = 1,
                                    .rank_of = rank_of,
                                    .entry_cap = ranks + std::max(1, ranks / 4),
                                    .forward_time = 1,
                                    .backward_time = 2});
  return schedule;
}

}  // namespace penstock
