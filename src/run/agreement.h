// What the processes of a run must have alike, said before the first step.
#pragma once

#include <optional>

#include "penstock/checkpoint/checkpoint.h"
#include "penstock/settings/settings.h"
#include "penstock/transport/c10d.h"

#include "run/job.h"

namespace penstock {

// \throws Error (BadInput), on every process the same, that names the first setting that differs.
void check_same_settings(ProcessGroup& group, const TrainSettings& settings);

// Sizes, kind and some samples. \throws Error (BadInput), on every process the same.
void check_same_data(ProcessGroup& group, const Job& job);

// The first process's. \throws Error (BadInput) where this process does not see it.
[[nodiscard]] std::optional<CheckpointId> agreed_checkpoint(ProcessGroup& group,
                                                            const std::optional<CheckpointId>& proposed);

}  // namespace penstock
