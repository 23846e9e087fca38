// What all ranks of a pipeline share and none of them writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"
#include "penstock/exec/rank.h"
#include "penstock/nn/ties.h"
#include "penstock/pipeline/pipeline.h"

namespace penstock {

struct PipelinePlan {
  Network network;
  PipelineSettings settings;     // nothing is left to be chosen: `cut` and `threads_per_rank` are set
  VerifiedSchedule training;     // lowered
  std::vector<Lead> leads = {};  // by rank
  std::vector<TieGroup> ties = {};
};

// Throws Error (BadInput) if network, schedule and settings do not fit each other.
[[nodiscard]] PipelinePlan make_pipeline_plan(Network network, const VerifiedSchedule& schedule,
                                              PipelineSettings settings);

// Devices are used in turn if there are fewer of them than ranks.
[[nodiscard]] at::Device device_of(const PipelinePlan& plan, RankId rank);

// The name of a layer's tensor in checkpoints.
[[nodiscard]] std::string tensor_name(std::int64_t layer, const std::string& name);

// The index of the first layer after `stage`.
[[nodiscard]] std::int64_t end_of_stage(const PipelinePlan& plan, StageId stage);

}  // namespace penstock
