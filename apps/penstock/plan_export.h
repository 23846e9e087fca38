// A plan for other runtimes: its cut, its schedule and how to use them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "penstock/plan/plan.h"

namespace penstock::app {

// Where a plan goes; empty: nowhere.
struct PlanExports {
  std::string pytorch;     // a folder
  std::string torchtitan;  // a folder
  std::string megatron;    // a file

  friend bool operator==(const PlanExports&, const PlanExports&) = default;
};

// Leaves of the request what those runtimes can run. Throws Error (BadInput) where it asks for what they cannot: stages
// on two ranks, replicas, microbatches of several sizes, for Megatron other schedules than its own.
void restrict_to_exports(PlanRequest& request, const PlanExports& exports);

// Throws Error (BadInput) where a folder is none.
void check_exports(const PlanExports& exports);

void write_exports(const Plan& plan, const LayerCosts& costs, const PlanExports& exports);

// Writes plan.json (cut by the names of the layers, ranks of the stages, microbatches, recomputation, prediction),
// schedule.csv (compute actions, as `_load_csv` reads them), train.py, which runs it, network_layers.py, which that
// needs, and README.md into `folder`, which is made. Throws Error (BadInput) for a schedule with copies of stages, and
// for tied parameters on two ranks, whose gradients PyTorch does not add.
void export_for_pytorch(const Plan& plan, const LayerCosts& costs, const std::filesystem::path& folder);

// What is written as train.py and network_layers.py.
extern const std::string_view train_program;
extern const std::string_view network_layers_program;

}  // namespace penstock::app
