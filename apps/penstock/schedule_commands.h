// The commands on schedules. They need no libtorch, neither to build nor to run.
#pragma once

#include "commands.h"

namespace penstock::app {

// penstock simulate FILE|NAME …
Command add_simulate_command(CLI::App& app);
// penstock schedule show|verify|compare|synth …
Command add_schedule_command(CLI::App& app);
// penstock schedule synth …
Command add_synth(CLI::App& schedule);

}  // namespace penstock::app
