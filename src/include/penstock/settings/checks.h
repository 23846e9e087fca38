/// \file
/// What rooms ask of settings, and refuse in them, besides `check_settings`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "penstock/settings/settings.h"

namespace penstock {

/// By layer, whether it is recomputed; empty for `None`. \param recompute neither `Selected`, which needs the network,
/// nor `Automatic`. \throws Error (BadInput) for a layer beyond `layers`.
[[nodiscard]] std::vector<bool> recomputed_layers(const Recompute& recompute, std::int64_t layers);

/// Where the schedule is that a plan's file names. A relative path begins at the folder of the plan. In plans of
/// earlier versions it begins at the folder in which they were written: for those, and for plans that were moved, the
/// file in the current folder is taken, or else the one of that name beside the plan. If there is none of them, the
/// first path is returned, and whoever reads it says that it is missing.
[[nodiscard]] std::filesystem::path schedule_file_of_plan(const std::filesystem::path& plan_file,
                                                          const std::filesystem::path& schedule);

/// Refuses what `schedule_of` refuses, without making a schedule that has a name. \throws Error (BadInput)
void check_schedule(const Layout& layout);

/// How many ranks the schedule has, of all replicas together. A schedule's file is read for this, and not verified.
/// \throws Error (BadInput) where there is no such schedule, or the file is none.
[[nodiscard]] int ranks_of(const Layout& layout);

/// The layout with which `processes` processes go on after `processes_before` had this one: as many stages on each rank
/// and about as many ranks in each process as before, and as many replicas where the ranks divide into them, otherwise
/// fewer. An explicit cut becomes uniform. \throws Error (BadInput) where the schedule has none.
[[nodiscard]] Layout layout_on_fewer(const Layout& layout, int processes_before, int processes);

/// The layers of the network: a built-in one has a last layer, and all but the mlp a first one, beside its blocks.
[[nodiscard]] std::int64_t network_layers(const TrainSettings::Model& model);

/// `check_settings` of a network that is only measured, for a plan: it needs no folder. \throws Error (BadInput)
void check_measured_settings(const TrainSettings& settings);

/// `check_settings` without the settings of data and of built-in networks, for a network of `settings.model.layers`
/// layers. \throws Error (BadInput)
void check_run_settings(const TrainSettings& settings);

}  // namespace penstock
