// What the command line says of words that it does not know.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::app {

// One line that says what was got, what was expected, and what was probably meant.
[[nodiscard]] std::string explain(const CLI::App& app, const CLI::ParseError& error);

// What the library says, with the options of the command line in place of its names of settings: "`eval_every`" becomes
// "--eval-every" if any command has that option.
[[nodiscard]] std::string in_options(const CLI::App& app, std::string_view text);

// The line for a word where one of `app`'s commands should stand. Empty: there is no word.
// \param path the command line up to there: "penstock schedule".
[[nodiscard]] std::string no_such_command(const CLI::App& app, const std::string& path, const std::string& word);

// A check for options: the value is one of these words.
[[nodiscard]] std::function<std::string(const std::string&)> one_of(std::vector<std::string> words);

}  // namespace penstock::app
