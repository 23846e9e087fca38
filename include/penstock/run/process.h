/// \file
/// Which part of a run in several processes this one has, as those say who start processes: `penstock train
/// --processes`, torchrun, mpirun, srun.
#pragma once

#include <optional>

#include "penstock/transport/process_settings.h"

namespace penstock {

/// This process's part, for `train`, or nothing if it was started alone. Takes over what the launcher left open for it;
/// call it once. \throws Error (BadInput) that names a variable of the environment (`worker_environment`).
[[nodiscard]] std::optional<ProcessSettings> process_of_environment();

/// Tells the launcher, if one asks, that all processes have met: for `TrainObserver::on_joined`.
void tell_joined();

}  // namespace penstock
