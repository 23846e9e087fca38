// The subcommands. Each adds itself to the program and, once parsed, runs and returns the exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace penstock::app {

using Command = std::function<int()>;

// Adds a subcommand; the returned function runs it after parsing, where `app.got_subcommand` says so.
Command add_train_command(CLI::App& app, int argc, char** argv);
Command add_eval_command(CLI::App& app);
Command add_sample_command(CLI::App& app);
Command add_bubbles_command(CLI::App& app);

}  // namespace penstock::app
