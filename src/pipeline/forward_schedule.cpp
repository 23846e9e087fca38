#include "pipeline/forward_schedule.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "penstock/schedule/replicas.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

// Where a rank has several stages, as many microbatches as there are ranks pass one stage before they come to the next,
// so that no rank waits for them to come round.
Schedule forward_of(const Placement& placement, int ranks, int microbatches) {
  Schedule forward;
  forward.forward_only = true;
  forward.stages = static_cast<int>(placement.holders.size());
  forward.microbatches = microbatches;
  forward.placement = placement;
  forward.actions.resize(static_cast<std::size_t>(ranks));
  // The one of a stage's two holders that has less to do.
  std::vector<std::size_t> stages_of(forward.actions.size());
  std::vector<RankId> holders;
  for (const auto& stage_holders : placement.holders) {
    holders.push_back(*std::min_element(stage_holders.begin(), stage_holders.end(), [&](RankId a, RankId b) {
      return stages_of[a.index()] < stages_of[b.index()];
    }));
    ++stages_of[holders.back().index()];
  }
  for (std::int32_t group = 0; group < microbatches; group += ranks) {
    const std::int32_t end = std::min(group + ranks, microbatches);
    for (std::int32_t stage = 0; stage < forward.stages; ++stage) {
      auto& actions = forward.actions[holders[static_cast<std::size_t>(stage)].index()];
      for (std::int32_t microbatch = group; microbatch < end; ++microbatch)
        actions.push_back({ActionKind::Forward, {stage}, {microbatch}});
    }
  }
  return forward;
}

// The first replica's.
Placement placement_of_one(const Placement& placement, int ranks) {
  Placement one = placement;
  for (auto& holders : one.holders)
    holders.erase(std::lower_bound(holders.begin(), holders.end(), RankId{ranks}), holders.end());
  return one;
}

}  // namespace

VerifiedSchedule forward_schedule(const Schedule& training, int replicas, int microbatches) {
  const int ranks = training.ranks() / replicas;
  const Placement placement = placement_of_one(training.placement, ranks);
  const int used = std::min(replicas, microbatches);
  std::vector<Schedule> parts;
  parts.reserve(static_cast<std::size_t>(used));
  for (int replica = 0; replica < used; ++replica)
    parts.push_back(forward_of(placement, ranks, microbatches_of_replica(microbatches, used, replica)));
  return lower(verify(side_by_side(parts)));
}

}  // namespace penstock
