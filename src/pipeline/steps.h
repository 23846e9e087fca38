// The steps that the ranks are at: each begins when its ranks have done the one before, and what it has to say follows
// when all ranks have agreed that its update stays.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/exec/rank.h"
#include "penstock/pipeline/pipeline.h"

#include "pipeline/control.h"
#include "pipeline/rank_team.h"
#include "pipeline/telemetry.h"

namespace penstock {

// Moves one rank's outputs to those of all, by microbatch: each comes from one rank, the others have nothing in its
// place.
void take_outputs(std::vector<Tensors>& rank_outputs, std::vector<Tensors>& outputs);

// One step on its way. Its ranks write, each its own part, until `unchecked` is 0; then it is the caller's.
struct StepInFlight {
  StepInput input;
  UpdateSettings settings;
  ControlWord word;
  std::vector<WorkerStep> by_rank;   // by rank
  std::vector<Milliseconds> begun;   // by rank of this process
  std::optional<StepResult> result;  // without timeline and outputs
  // Ranks of this process that do not know yet whether the update stays. Atomic: the caller looks at it without the
  // team's lock, too.
  std::atomic<std::size_t> unchecked = 0;
};

// Belongs to the thread that calls the pipeline.
class Steps {
 public:
  // All must outlive this. `most` steps may be in flight, at least 1.
  Steps(RankTeam& team, Telemetry& telemetry, Control& control, int most)
      : team_(team), telemetry_(telemetry), control_(control), most_(static_cast<std::size_t>(most)) {}

  // Begins a step when there is room for it. `alone`: nothing is known to follow, so that its update is checked at
  // once.
  std::shared_ptr<StepInFlight> submit(StepInput input, const UpdateSettings& settings, bool alone);
  // Waits until the step's update has been checked. Throws Error, that of the rank that failed first.
  StepResult wait(const std::shared_ptr<StepInFlight>& step);
  // Has the ranks check the last update before they do anything else. Does not wait.
  void check_last();

 private:
  void run_step(RankId rank, StepInFlight& step, StepInFlight* before, bool alone);
  void conclude(RankId rank, StepInFlight& step, const StepResult& result);

  RankTeam& team_;
  Telemetry& telemetry_;
  Control& control_;
  std::size_t most_;
  std::deque<std::shared_ptr<StepInFlight>> unchecked_;  // in their order
  std::shared_ptr<StepInFlight> last_;                   // whose update nobody has been told to check
};

}  // namespace penstock
