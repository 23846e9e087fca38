// A run in several processes: who this one is, and how they are started.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/settings/settings.h"
#include "penstock/transport/process_settings.h"

namespace penstock::app {

// What the environment says, or nothing where this process was started alone.
[[nodiscard]] std::optional<ProcessSettings> own_process();

// Starts `settings.processes` of this program with these arguments, and watches them. Returns the exit code.
// \param verbose whether every line of every process is passed on.
[[nodiscard]] int launch_processes(const TrainSettings& settings, const std::vector<std::string>& arguments,
                                   bool verbose);

}  // namespace penstock::app
