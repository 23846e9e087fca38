// A plan for torch.distributed.pipelining: its cut, its schedule and how to use them.
#pragma once

#include <filesystem>
#include <string_view>

#include "penstock/plan/plan.h"

namespace penstock::app {

// Leaves of the request what PyTorch's runtime can run. Throws Error (BadInput) where it asks for what that cannot:
// stages on two ranks, replicas, microbatches of several sizes.
void restrict_to_pytorch(PlanRequest& request);

// Writes plan.json (cut by the names of the layers, ranks of the stages, microbatches, recomputation, prediction),
// schedule.csv (compute actions, as `_load_csv` reads them), train.py, which runs it, network_layers.py, which that
// needs, and README.md into `folder`, which is made. Throws Error (BadInput) for a schedule with copies of stages, and
// for tied parameters on two ranks, whose gradients PyTorch does not add.
void export_for_pytorch(const Plan& plan, const LayerCosts& costs, const std::filesystem::path& folder);

// What is written as train.py and network_layers.py.
extern const std::string_view train_program;
extern const std::string_view network_layers_program;

}  // namespace penstock::app
