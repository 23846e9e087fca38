#include "penstock/schedule/placement.h"

#include <fmt/format.h>

#include "penstock/base/error.h"

namespace penstock {

Placement loop_placement(int ranks, int stages) {
  if (ranks < 1 || stages < 1)
    throw bad_input(fmt::format("a placement of {} stages on {} ranks", stages, ranks), "at least 1 of each",
                    "raise the smaller number");
  Placement placement;
  placement.holders.reserve(static_cast<std::size_t>(stages));
  for (int stage = 0; stage < stages; ++stage) placement.holders.push_back({RankId{stage % ranks}});
  return placement;
}

Placement v_placement(int ranks) {
  if (ranks < 1) throw bad_input(fmt::format("a placement on {} ranks", ranks), "at least 1", "raise the ranks");
  Placement placement;
  placement.holders.reserve(2 * static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) placement.holders.push_back({RankId{rank}});
  for (int rank = ranks; rank-- > 0;) placement.holders.push_back({RankId{rank}});
  return placement;
}

}  // namespace penstock
