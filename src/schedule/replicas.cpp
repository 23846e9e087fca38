#include "penstock/schedule/replicas.h"

#include <bit>
#include <cstdint>
#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

namespace penstock {

int microbatches_of_replica(int microbatches, int replicas, int replica) {
  const auto begin = [&](std::int64_t index) { return index * microbatches / replicas; };
  return static_cast<int>(begin(replica + std::int64_t{1}) - begin(replica));
}

int GradientRuns::kept() const { return static_cast<int>(std::bit_width(static_cast<unsigned>(count))) - 1; }

bool allows_gradient_tree(int gradient_tree, int replicas, std::int64_t microbatches) {
  if (gradient_tree == 0) return true;
  return gradient_tree > 0 && std::has_single_bit(static_cast<unsigned>(gradient_tree)) &&
         gradient_tree % replicas == 0 && microbatches % gradient_tree == 0;
}

void check_gradient_tree(int gradient_tree, int replicas, int microbatches) {
  if (allows_gradient_tree(gradient_tree, replicas, microbatches)) return;
  throw bad_input(fmt::format("`gradient_tree` is {} with {} and {}", gradient_tree, counted(replicas, "replica"),
                              counted(microbatches, "microbatch")),
                  "0, or a power of two that the replicas divide and that divides the microbatches",
                  "change `gradient_tree`, `replicas` or `microbatches`");
}

GradientRuns gradient_runs(int gradient_tree, int replicas, std::int64_t microbatches) {
  if (gradient_tree == 0) return {microbatches, 1};
  return {microbatches / gradient_tree, gradient_tree / replicas};
}

Schedule side_by_side(const std::vector<Schedule>& replicas) {
  check_invariant(!replicas.empty(), "replicas of nothing");
  Schedule all;
  all.stages = replicas.front().stages;
  all.forward_only = replicas.front().forward_only;
  all.placement.holders.resize(as_size(all.stages));
  for (const Schedule& replica : replicas) {
    if (replica.stages != all.stages || replica.forward_only != all.forward_only)
      throw bad_input(fmt::format("replicas of {} and of {} stages", all.stages, replica.stages),
                      "schedules of the same stages, all with backward passes or all without",
                      "make them for the same stages");
    const std::int32_t first_rank = all.ranks();
    for (std::size_t stage = 0; stage < all.placement.holders.size(); ++stage)
      for (const RankId holder : replica.placement.holders.at(stage))
        all.placement.holders[stage].push_back({first_rank + holder.value});
    for (const auto& row : replica.actions) {
      auto& shifted = all.actions.emplace_back(row);
      for (Action& action : shifted)
        if (action.microbatch.value >= 0) action.microbatch.value += all.microbatches;
    }
    all.microbatches += replica.microbatches;
  }
  return all;
}

}  // namespace penstock
