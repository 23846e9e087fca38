// The program without its start.
#pragma once

namespace penstock::app {

// What `main` does with its arguments: runs a command, prints, complains. Returns the exit code; throws nothing.
[[nodiscard]] int run_program(int argc, char** argv);

// Ends the process with that exit code. What was printed is written out, but libtorch is not taken apart, which takes
// as long as many a command. Under the sanitizers it is, so that they find what leaks.
[[noreturn]] void end_program(int code);

}  // namespace penstock::app
