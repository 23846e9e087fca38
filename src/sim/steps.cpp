#include "penstock/sim/steps.h"

#include <algorithm>
#include <vector>

#include "penstock/base/index.h"
#include "penstock/schedule/steps.h"
#include "penstock/sim/simulate.h"

#include "sim/play.h"

namespace penstock {
namespace {

// By rank: of the weights of its stages.
std::vector<double> updates_of(const Schedule& step, const Cost& cost) {
  std::vector<double> updates(step.actions.size());
  for (std::size_t stage = 0; stage < step.placement.holders.size(); ++stage)
    for (const RankId holder : step.placement.holders[stage])
      updates[holder.index()] += cost.stages[stage].update.count;
  return updates;
}

}  // namespace

StepsInARow simulate_in_a_row(const VerifiedSchedule& step, const Cost& cost, int steps) {
  require_fit(step.get(), cost);
  const std::vector<double> updates = updates_of(step.get(), cost);
  const auto events = play(in_a_row(step.get(), steps), cost, {step->microbatches, updates}).events;
  std::vector<double> ends(as_size(steps));  // by step
  double busy = 0;                           // in the steps that set the pace
  for (std::size_t rank = 0; rank < events.size(); ++rank)
    for (const Event& event : events[rank]) {
      const std::size_t at = event.action.microbatch.index() / as_size(step->microbatches);
      ends[at] = std::max(ends[at], event.end.count + updates[rank]);
      if (at > 0 || steps == 1) busy += event.end.count - event.start.count;
    }
  const double pace = steps == 1 ? ends.front() : (ends.back() - ends.front()) / (steps - 1);
  const double paced = pace * std::max(1, steps - 1) * static_cast<double>(events.size());
  return {steps, {ends.front()}, {pace}, paced > 0 ? busy / paced : 0};
}

}  // namespace penstock
