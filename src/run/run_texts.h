// What a run says at its end: the plan beside what was measured, and what checkpoints cost.
#pragma once

#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/data/order.h"
#include "penstock/plan/plan.h"
#include "penstock/run/train.h"
#include "penstock/settings/settings.h"

#include "run/run_checkpoints.h"

namespace penstock {

[[nodiscard]] std::string planned_text(const PlanPrediction& planned, Milliseconds step, double measured_utilisation,
                                       const std::vector<StageSummary>& stages, bool one_process);

// What checkpoints cost the steps. Empty where none was written between steps.
[[nodiscard]] std::string saving_text(const SavingTimes& times, const std::vector<double>& step_ms,
                                      const std::vector<double>& beside_writes);

// For a mixture: which share each source has, and how often all steps together pass through it.
[[nodiscard]] std::string mixture_text(const TrainSettings& settings, const std::vector<SourceShare>& sources);

}  // namespace penstock
