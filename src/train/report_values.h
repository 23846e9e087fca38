// What processes tell each other of their ranks' work, as numbers.
#pragma once

#include <vector>

#include "penstock/train/pipeline.h"

#include "train/worker.h"

namespace penstock {

[[nodiscard]] std::vector<double> to_values(const std::vector<StageReport>& reports);
// \throws Error (RunFailed) where there are other numbers than `to_values` gives.
[[nodiscard]] std::vector<StageReport> stage_reports(const std::vector<double>& values);

// Events and memory of a rank's step.
[[nodiscard]] std::vector<double> to_values(const WorkerStep& step);
// Into `step`, on the reader's clock. \throws Error (RunFailed) as above.
void take_values(const std::vector<double>& values, Milliseconds clock_is_ahead, WorkerStep& step);

}  // namespace penstock
