// A run in several processes: who this one is, and how they are started.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "penstock/settings/settings.h"
#include "penstock/transport/c10d.h"

namespace penstock::app {

// What the environment says, or nothing where this process was started alone.
[[nodiscard]] std::optional<ProcessSettings> own_process();

// The option by which a process that is started again is given its settings: the name of a TOML file that has all of
// them. It is no option for people.
inline constexpr const char* restart_option = "--restart-settings";

// Starts `settings.processes.count` of this program with these arguments, and watches them. Those that are started
// again get their settings by `restart_option`. Returns the exit code.
// \param verbose whether every line of every process is passed on.
[[nodiscard]] int launch_processes(const TrainSettings& settings, const std::vector<std::string>& arguments,
                                   bool verbose);

}  // namespace penstock::app
