#include "penstock/sim/simulate.h"

#include <fmt/format.h>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

#include "sim/play.h"

namespace penstock {

void require_fit(const Schedule& schedule, const Cost& cost) {
  validate(cost);
  if (cost.stages.size() != as_size(schedule.stages))
    throw bad_input(fmt::format("a cost of {} stages", cost.stages.size()),
                    fmt::format("the {} stages of the schedule", schedule.stages), "give one entry for each stage");
  for (const auto& [pair, link] : cost.links)
    if (pair.first.value >= schedule.ranks() || pair.second.value >= schedule.ranks())
      throw bad_input(fmt::format("a link from rank {} to rank {}", pair.first.value, pair.second.value),
                      fmt::format("ranks 0 to {}", schedule.ranks() - 1), "remove the link or use more ranks");
  if (!cost.memory_caps.empty() && cost.memory_caps.size() != schedule.actions.size())
    throw bad_input(
        fmt::format("memory caps for {}", counted(static_cast<std::int64_t>(cost.memory_caps.size()), "rank")),
        fmt::format("one for each of {} ranks", schedule.ranks()), "correct memory_cap_bytes");
}

Timeline simulate(const VerifiedSchedule& schedule, const Cost& cost, const SimulationOptions& options) {
  require_fit(schedule.get(), cost);
  Play played = play(schedule.get(), cost);
  Timeline timeline;
  if (options.record_memory) timeline.memory = memory_of(schedule.get(), cost, played);
  timeline.ranks = std::move(played.events);
  return timeline;
}

}  // namespace penstock
