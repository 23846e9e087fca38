// The commands on schedules and plans. They need no libtorch, neither to build nor to run.
#pragma once

#include "commands.h"

namespace penstock::app {

// penstock simulate FILE|NAME …
Command add_simulate_command(CLI::App& app);
// penstock schedule show|verify|compare|synth …
Command add_schedule_command(CLI::App& app);
// penstock schedule synth …
Command add_synth(CLI::App& schedule);

// penstock plan --cost FILE …
Command add_plan_command(CLI::App& app);

// Refuses an --output that cannot be a file, before the work. Empty stands for the terminal.
void check_output(const std::string& output);

}  // namespace penstock::app
