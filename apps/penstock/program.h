// The program without its start.
#pragma once

namespace penstock::app {

// What `main` does with its arguments: runs a command, prints, complains. Returns the exit code; throws nothing.
[[nodiscard]] int run_program(int argc, char** argv);

}  // namespace penstock::app
