/// \file
/// Which rank holds which stage.
#pragma once

#include <vector>

#include "penstock/base/ids.h"

namespace penstock {

/// For each stage the ranks that hold a copy of it: one, two for a bidirectional schedule, and as many times more as
/// there are replicas.
struct Placement {
  std::vector<std::vector<RankId>> holders;  ///< by stage; each list ascending

  friend bool operator==(const Placement&, const Placement&) = default;
};

/// Stage s on rank s mod P. \param ranks,stages at least 1.
[[nodiscard]] Placement loop_placement(int ranks, int stages);

/// Stages 0 … 2P − 1 on ranks 0, 1, …, P − 1, P − 1, …, 1, 0 (arXiv 2405.15362, section 3).
[[nodiscard]] Placement v_placement(int ranks);

/// The stages to and fro over the ranks: a V for `stages_per_rank` 2, and so on for more (arXiv 2308.15762).
[[nodiscard]] Placement wave_placement(int ranks, int stages_per_rank);

}  // namespace penstock
