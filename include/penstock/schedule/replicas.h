/// \file
/// Data parallel: whole pipelines side by side, each with its share of the minibatch's microbatches. They are one
/// schedule, so that what verifies, lowers, simulates, draws and runs schedules does it for them too.
///
///     const penstock::Schedule one = penstock::make_schedule("1f1b", /*ranks=*/4, /*microbatches=*/8);
///     const penstock::VerifiedSchedule two = penstock::verify(penstock::side_by_side({one, one}));  // 8 ranks
#pragma once

#include <cstdint>
#include <vector>

#include "penstock/schedule/verify.h"

namespace penstock {

/// The microbatches of replica `replica`: contiguous shares in the order of the replicas, whose sizes differ by at most
/// one. \param replicas at least 1 and at most `microbatches`.
[[nodiscard]] int microbatches_of_replica(int microbatches, int replicas, int replica);

/// Makes one schedule of several that have the same stages: rank r of replica k becomes rank r plus the ranks of the
/// replicas before, a microbatch is numbered behind those of the replicas before, and every stage is held by its
/// holders in all of them.
/// \param replicas at least one. \throws Error (BadInput) if they differ in stages or in what they are for.
[[nodiscard]] Schedule side_by_side(const std::vector<Schedule>& replicas);

/// How a replica adds up its gradients under a gradient tree: a run of microbatches in a row, then its runs along a
/// tree.
struct GradientRuns {
  std::int64_t length = 1;  ///< microbatches of a run
  int count = 1;            ///< runs of one replica

  /// How many gradients a stage keeps at most beside the one that it adds to.
  [[nodiscard]] int kept() const;

  friend bool operator==(const GradientRuns&, const GradientRuns&) = default;
};

/// Whether a tree over `gradient_tree` runs has the same sums on so many replicas, and on one: it is a power of two,
/// the replicas divide it, and it divides the microbatches of all replicas. \param gradient_tree 0: no tree, which is
/// always allowed. \param microbatches at least 1
[[nodiscard]] bool allows_gradient_tree(int gradient_tree, int replicas, std::int64_t microbatches);

/// \throws Error (BadInput) where `allows_gradient_tree` says no.
void check_gradient_tree(int gradient_tree, int replicas, int microbatches);

/// \param gradient_tree one that is allowed; 0: all microbatches of a replica are one run.
[[nodiscard]] GradientRuns gradient_runs(int gradient_tree, int replicas, std::int64_t microbatches);

}  // namespace penstock
