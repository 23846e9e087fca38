/// \file
/// The times of a play: when every action ran and when every message was there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "penstock/cost/cost.h"
#include "penstock/schedule/routes.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// One time for each stage and microbatch; `never` where it has not come.
class Arrivals {
 public:
  static constexpr double never = -1;

  Arrivals(std::size_t stages, std::size_t microbatches)
      : microbatches_(microbatches), times_(stages * microbatches, never) {}

  [[nodiscard]] double& at(StageId stage, MicrobatchId microbatch) {
    return times_[stage.index() * microbatches_ + microbatch.index()];
  }
  [[nodiscard]] double at(StageId stage, MicrobatchId microbatch) const {
    return times_[stage.index() * microbatches_ + microbatch.index()];
  }

 private:
  std::size_t microbatches_;
  std::vector<double> times_;
};

/// A whole step, played.
struct Play {
  std::vector<std::vector<Event>> events;  ///< by rank, compute actions only
  Routes routes;
  Arrivals inputs;     ///< when the input of a stage is on its rank; stage 0 has its own at 0
  Arrivals gradients;  ///< when the gradient of a stage's output is on its rank
};

/// What a rank does between the steps of a schedule that holds several.
struct Updates {
  int microbatches = 0;                   ///< of one step; 0: it is all one step
  std::vector<double> milliseconds = {};  ///< by rank

  /// Whether an action of another step than `step` is next, which becomes that step.
  [[nodiscard]] bool come_before(const Action& action, int& step) const {
    if (microbatches == 0) return false;
    const int next = action.microbatch.value / microbatches;
    return std::exchange(step, next) != next;
  }
};

/// \throws Error (BadInput) if the costs do not fit to the schedule.
void require_fit(const Schedule& schedule, const Cost& cost);

/// Whether the next action of a rank, or the other half of its pair, is of this stage and microbatch.
[[nodiscard]] bool waits_for(const std::vector<Action>& actions, std::size_t next, StageId stage,
                             MicrobatchId microbatch);

/// Plays the schedule, which is verified, with costs that fit to it.
[[nodiscard]] Play play(const Schedule& schedule, const Cost& cost, const Updates& updates = {});

/// The memory of every rank over time.
[[nodiscard]] std::vector<std::vector<MemorySample>> memory_of(const Schedule& schedule, const Cost& cost,
                                                               const Play& played);

}  // namespace penstock
