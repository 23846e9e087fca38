#include "penstock/schedule/verify.h"

#include "schedule/verify_passes.h"

namespace penstock {

VerifiedSchedule verify(Schedule schedule, const VerifyOptions& options) {
  check_shape(schedule);
  check_forward_count(schedule);
  const ActionIndex index = index_actions(schedule);
  check_complete(schedule, index);
  if (options.accumulation == Accumulation::InOrder) check_accumulation(schedule);
  if (index.communicates) check_boundaries(schedule, index);
  check_order(schedule, index, options.sends);
  if (options.memory_cap) check_memory(schedule, *options.memory_cap);
  return {std::move(schedule), options.accumulation};
}

}  // namespace penstock
