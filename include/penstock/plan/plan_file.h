/// \file
/// Plans as files: TOML with the settings of `penstock train` by their names, and what was predicted in a table of its
/// own.
///
///     batch = 64
///     stages = 8
///     cut = "3,6,9,12,15,18,21"
///     schedule = "zb-v"
///     microbatches = 8
///     recompute = "none"
///
///     [prediction]
///     ranks = 4
///     stages-per-rank = 2
///     replicas = 1
///     layers = 24
///     step-ms = 142.1
///     pipeline-ms = 141.8
///     exchange-ms = 0
///     update-ms = 0.3
///     utilisation = 0.93
///     samples-per-second = 450.4
///     memory-bytes = [1073741824, 1073741824, 1073741824, 1073741824]
///     stage-ms = [2.1, 2.2, …]
///     costs = "cost.json"
///     ties = [{owner = {layer = 0, parameter = "token.weight"}, copy = {layer = 23, parameter = "output.weight"},
///              bytes = 3145728}]
///     shared-ties = true    # planned for tied parameters that are one object
///
/// `ties` are those of the costs, `shared-ties` is `PlanRequest::share_ties`; both are left out if there is nothing
/// to say. A schedule that has no name of its own (a synthesised one, or one with another number of stages a rank than
/// its name stands for) is a CSV file beside it, and `schedule` its path.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "penstock/plan/plan.h"

namespace penstock {

/// Whether the plan's schedule has to be a file of its own.
[[nodiscard]] bool needs_schedule_file(const Plan& plan);

/// The recomputed layers as `--recompute` takes them: "none", "full" or "0-3,8".
[[nodiscard]] std::string recompute_words(const Plan& plan);

/// The TOML form. \param schedule_file what `schedule` says if the plan needs a file.
[[nodiscard]] std::string to_toml(const Plan& plan, std::string_view schedule_file = "");

/// Writes the TOML form to `path` and, if the plan needs one, the schedule to `path` with the ending `.csv`.
/// \throws Error (BadInput, RunFailed)
void save_plan(const Plan& plan, const std::filesystem::path& path);

/// Reads what `save_plan` wrote. Settings of `penstock train` that are no part of a plan are passed over.
/// \throws Error (BadInput) that names the file and the key.
[[nodiscard]] Plan load_plan(const std::filesystem::path& path);

}  // namespace penstock
