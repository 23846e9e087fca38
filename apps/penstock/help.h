// How `--help` reads, and what it shows of each command in use.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::app {

// An option's names as they are typed: "-o", "--output".
[[nodiscard]] std::vector<std::string> typed_names(const CLI::Option& option);

// A line that a user may type, and what it is for. tests/dist/examples_test.py runs them all, in the order of the
// commands that it says, in a folder with book.txt, other.txt and the folder llama/ of a published model.
struct Example {
  std::string_view meaning;
  std::string_view line;
};

// Those of a command; `path` is its words behind the program's name, "schedule show". Empty for commands without any.
[[nodiscard]] std::vector<Example> examples_of(std::string_view path);

// Lets the program and the commands that are added later show options by the names that are typed. Call it first.
void show_typed_names(CLI::App& program);

// The value that an option has where none is given, as it is typed: "1,2,4". Empty: none is known.
[[nodiscard]] std::string usual_value(const CLI::Option& option);

// What stands above an example: "Draw one in the terminal:", "Is this port free?"
[[nodiscard]] std::string introduction(const Example& example);

// Puts the examples behind the options of each command. Call it when all commands are there.
void show_examples(CLI::App& program);

// The pages in a folder, by their names without the ending .md, sorted; none where `folder` is empty.
// Throws Error (BadInput) for a folder that cannot be read.
[[nodiscard]] std::vector<std::string> topics_in(const std::filesystem::path& folder);

}  // namespace penstock::app
