// A plan for torch.distributed.pipelining: its cut, its schedule and how to use them.
#pragma once

#include <filesystem>

#include "penstock/plan/plan.h"

namespace penstock::app {

// Writes plan.json (cut, ranks of the stages, microbatches, recomputation, prediction), schedule.csv (compute actions,
// as `_load_csv` reads them) and README.md into `folder`, which is made. Throws Error (BadInput) for a schedule with
// copies of stages, which PyTorch's runtime does not know, and for tied parameters on two ranks, whose gradients it
// does not add.
void export_for_pytorch(const Plan& plan, const LayerCosts& costs, const std::filesystem::path& folder);

}  // namespace penstock::app
