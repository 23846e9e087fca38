// What settings leave to a plan, chosen for a network that is already there.
#pragma once

#include "penstock/run/train.h"

#include "run/job.h"

namespace penstock {

// As the one of planning.h. Costs of a network of one's own are found only in the file that `settings.cost` names: what
// its layers do cannot be told from their names.
[[nodiscard]] MeasuredCosts measured_costs(const TrainSettings& settings, const Job& job, const PlanRequest& request,
                                           const Note& note);

// As the one of planning.h.
[[nodiscard]] TrainSettings choose_automatic(const TrainSettings& settings, const Job& job, const Note& note);

}  // namespace penstock
