#include "measured.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/report/read_trace.h"
#include "penstock/sim/measured_cost.h"

namespace penstock::explorer {

MeasuredRun read_measured(std::string_view text) {
  if (text.size() > longest_text)
    throw bad_input(fmt::format("timeline.json: {} bytes, more than are read", text.size()),
                    "a trace of a run of penstock", "take the timeline.json of a run's folder");
  MeasuredStep step = read_chrome_trace(text);
  Schedule& schedule = step.schedule;
  const int per_rank = std::max(1, schedule.stages / schedule.ranks());
  check_passes(schedule.ranks(), per_rank, schedule.microbatches);
  Cost cost = measured_cost({step.timeline}, schedule);
  Timeline measured = from_first_start(compute_actions(step.timeline));
  return {std::move(measured),
          {"schedule.csv", per_rank, verify(std::move(schedule), {.accumulation = Accumulation::AnyOrder}),
           std::move(cost)}};
}

}  // namespace penstock::explorer
