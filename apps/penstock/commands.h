// The subcommands. Each adds itself to the program and, once parsed, runs and returns the exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <concepts>
#include <functional>
#include <string>

namespace penstock::app {

using Command = std::function<int()>;

// Refuses what is no number of this type: the parser would take the nearest one, and for -1 the largest there is.
template <std::integral Number>
std::string whole_number(const std::string& text) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [read, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) return "'" + text + "' is beyond the whole numbers that fit here";
  if (read == end && !text.empty()) return "";
  return "'" + text + "' is not a whole number" + (std::unsigned_integral<Number> ? " of at least 0" : "");
}

// Adds a subcommand; the returned function runs it after parsing, where `app.got_subcommand` says so.
Command add_train_command(CLI::App& app, int argc, char** argv);
Command add_eval_command(CLI::App& app);
Command add_sample_command(CLI::App& app);
Command add_export_command(CLI::App& app);
Command add_bubbles_command(CLI::App& app);
Command add_doctor_command(CLI::App& app);

}  // namespace penstock::app
