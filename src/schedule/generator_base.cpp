#include "schedule/generator_base.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

namespace penstock {

void check_sizes(int ranks, int stages_per_rank, int microbatches) {
  // Far enough from the largest int that no number on the way to a schedule overflows.
  constexpr int most_ranks = 30'000;
  constexpr int most_microbatches = 100'000'000;
  // Some GB of actions. Where memory runs out the system kills, which says nothing: refuse what is far from any use.
  constexpr std::int64_t most_passes = 25'000'000;
  const std::string got = fmt::format("a schedule of {}, {} a rank and {}", counted(ranks, "rank"),
                                      counted(stages_per_rank, "stage"), counted(microbatches, "microbatch"));
  if (ranks < 1 || microbatches < 1 || stages_per_rank < 1)
    throw bad_input(got, "at least 1 of each", "raise the smallest number");
  if (ranks > most_ranks || stages_per_rank > most_ranks || microbatches > most_microbatches)
    throw bad_input(got, fmt::format("at most {}, {} and {}", most_ranks, most_ranks, most_microbatches),
                    "lower the largest number");
  if (std::int64_t{ranks} * stages_per_rank > most_passes / microbatches)
    throw bad_input(got, fmt::format("a product of at most {}", most_passes), "lower one of the numbers");
}

Schedule empty_schedule(int ranks, int microbatches, Placement placement) {
  Schedule schedule;
  schedule.stages = static_cast<int>(placement.holders.size());
  schedule.microbatches = microbatches;
  schedule.placement = std::move(placement);
  schedule.actions.resize(as_size(ranks));
  return schedule;
}

Schedule empty_loop_schedule(int ranks, int stages_per_rank, int microbatches) {
  check_sizes(ranks, stages_per_rank, microbatches);
  return empty_schedule(ranks, microbatches, loop_placement(ranks, ranks * stages_per_rank));
}

Schedule empty_v_schedule(int ranks, int microbatches) {
  check_sizes(ranks, 2, microbatches);
  return empty_schedule(ranks, microbatches, v_placement(ranks));
}

void check_two_directions(std::string_view name, int ranks) {
  if (ranks % 2 != 0)
    throw bad_input(fmt::format("{} on {}", name, counted(ranks, "rank")),
                    "an even number of ranks, half of them for each direction",
                    "change the number of ranks, or take dualpipev, which has one direction");
}

void check_waves(int stages_per_rank) {
  if (stages_per_rank % 2 != 0)
    throw bad_input(fmt::format("hanayo with {} a rank", counted(stages_per_rank, "stage")),
                    "an even number, two for each wave", "raise it by one");
}

Placement bidirectional_placement(std::string_view name, int ranks) {
  check_two_directions(name, ranks);
  Placement placement;
  for (int stage = 0; stage < ranks; ++stage) {
    const int mirror = ranks - 1 - stage;
    placement.holders.push_back({RankId{std::min(stage, mirror)}, RankId{std::max(stage, mirror)}});
  }
  return placement;
}

void keep_microbatches(Schedule& schedule, int microbatches) {
  if (microbatches == schedule.microbatches) return;
  for (auto& row : schedule.actions) {
    std::size_t kept = 0;
    for (std::size_t position = 0; position < row.size(); ++position) {
      Action action = row[position];
      const bool loses_partner = action.overlaps_next && row[position + 1].microbatch.value >= microbatches;
      if (action.microbatch.value >= microbatches) continue;
      if (loses_partner) action.overlaps_next = false;
      row[kept++] = action;
    }
    row.resize(kept);
  }
  schedule.microbatches = microbatches;
}

}  // namespace penstock
