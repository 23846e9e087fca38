/// \file
/// Which rank does a stage's work on a microbatch. Where every stage has one holder the placement says it; in a
/// bidirectional schedule each microbatch takes one of two routes through the ranks, and only its actions say which.
#pragma once

#include <vector>

#include "penstock/schedule/verify.h"

namespace penstock {

/// The route of each microbatch. Immutable, thread-safe. Memory: stages × microbatches.
class Routes {
 public:
  /// \param schedule complete: every stage has an F of every microbatch.
  explicit Routes(const Schedule& schedule);

  /// The rank that does F, B, I and W of `microbatch` on `stage`, and so the rank to which the boundary is sent.
  [[nodiscard]] RankId rank_of(StageId stage, MicrobatchId microbatch) const {
    return ranks_.at(stage.index() * microbatches_ + microbatch.index());
  }

 private:
  std::size_t microbatches_;
  std::vector<RankId> ranks_;
};

}  // namespace penstock
