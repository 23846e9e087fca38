// What a shell and `man` know of the commands: completions and pages, made from the options themselves.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "commands.h"

namespace penstock::app {

// For bash 4 and newer: commands, options, and files where an option takes a value.
[[nodiscard]] std::string bash_completion(const CLI::App& program);
// The same for zsh, with what each option means.
[[nodiscard]] std::string zsh_completion(const CLI::App& program);
// The same for fish.
[[nodiscard]] std::string fish_completion(const CLI::App& program);

struct ManualPage {
  std::string name;  // "penstock-schedule-show"
  std::string text;  // for man's macros (man(7))

  friend bool operator==(const ManualPage&, const ManualPage&) = default;
};

// One of the program, and one of each command. \param version as `--version` says it.
[[nodiscard]] std::vector<ManualPage> manual_pages(const CLI::App& program, const std::string& version);

// Writes all of them under `prefix`, where an install has them: share/man/man1 and the shells' folders.
void write_shell_pages(const CLI::App& program, const std::string& version, const std::filesystem::path& prefix);

// `penstock shell-pages PREFIX`, which no help names: an install calls it.
Command add_shell_pages_command(CLI::App& program, std::string version);

}  // namespace penstock::app
