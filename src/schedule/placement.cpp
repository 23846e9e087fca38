#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/schedule/verify.h"

namespace penstock {

Placement loop_placement(int ranks, int stages) {
  if (ranks < 1 || stages < 1)
    throw bad_input(fmt::format("a placement of {} on {}", counted(stages, "stage"), counted(ranks, "rank")),
                    "at least 1 of each", "raise the smaller number");
  Placement placement;
  placement.holders.reserve(as_size(stages));
  for (int stage = 0; stage < stages; ++stage) placement.holders.push_back({RankId{stage % ranks}});
  return placement;
}

Placement v_placement(int ranks) { return wave_placement(ranks, 2); }

Placement wave_placement(int ranks, int stages_per_rank) {
  if (ranks < 1 || stages_per_rank < 1)
    throw bad_input(
        fmt::format("a placement of {} on each of {}", counted(stages_per_rank, "stage"), counted(ranks, "rank")),
        "at least 1 of each", "raise the smaller number");
  Placement placement;
  placement.holders.reserve(as_size(ranks) * as_size(stages_per_rank));
  for (int pass = 0; pass < stages_per_rank; ++pass)
    for (int place = 0; place < ranks; ++place)
      placement.holders.push_back({RankId{pass % 2 == 0 ? place : ranks - 1 - place}});
  return placement;
}

}  // namespace penstock
