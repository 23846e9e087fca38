#include <array>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "penstock/base/file.h"
#include "penstock/launch/stop_signal.h"
#include "penstock/report/run_report.h"

#include "output_file.h"
#include "schedule_commands.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;

struct ReportOptions {
  std::vector<std::string> runs;
  std::string output = "report.html";
  bool watch = false;
  bool quiet = false;
};

// What shows that a run has written something.
struct FileState {
  std::uintmax_t size = 0;
  fs::file_time_type changed;

  friend bool operator==(const FileState&, const FileState&) = default;
};

std::vector<FileState> states_of(const std::vector<std::string>& runs) {
  constexpr std::array written{"config.toml", "metrics.jsonl", "events.jsonl", "timeline.json", "links.json"};
  std::vector<FileState> states;
  for (const std::string& run : runs)
    for (const char* name : written) {
      std::error_code missing;
      FileState& state = states.emplace_back();
      state.size = fs::file_size(fs::path(run) / name, missing);
      state.changed = fs::last_write_time(fs::path(run) / name, missing);
    }
  return states;
}

void write_page(const ReportOptions& options, int reload_seconds) {
  std::vector<RecordedRun> runs;
  runs.reserve(options.runs.size());
  for (const std::string& folder : options.runs) runs.push_back(read_run(folder));
  const std::string title = options.runs.size() == 1 ? options.runs.front() : fmt::format("{} runs", runs.size());
  write_file_atomically(options.output, to_html(runs, {.title = title, .reload_seconds = reload_seconds}));
}

// Until a signal asks for the end.
void watch(const ReportOptions& options) {
  constexpr int reload_seconds = 5;
  constexpr timespec between_looks{1, 0};
  hold_stop_signals();
  sigset_t awaited;
  sigemptyset(&awaited);
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) sigaddset(&awaited, signal);
  std::vector<FileState> seen;
  do {
    std::vector<FileState> now = states_of(options.runs);
    if (now == seen) continue;
    write_page(options, reload_seconds);
    if (seen.empty() && !options.quiet) {
      fmt::print("{} is written anew as the runs go on; end with Ctrl-C\n", options.output);
      std::fflush(stdout);
    }
    seen = std::move(now);
  } while (::sigtimedwait(&awaited, nullptr, &between_looks) < 0);
  // The last one need not load itself again.
  write_page(options, 0);
}

int run(const ReportOptions& options) {
  check_output_is({"HTML", ".html"}, options.output);
  if (options.watch) {
    watch(options);
    return 0;
  }
  write_page(options, 0);
  if (!options.quiet) fmt::print("{}\n", options.output);
  return 0;
}

}  // namespace

Command add_report_command(CLI::App& app) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* command =
      app.add_subcommand("report", "One page of one or several runs: curves, time, memory, links, the last step");
  command->add_option("runs", options->runs, "Folders of runs (train --out)")->required();
  command->add_option("-o,--output", options->output, "The page")->capture_default_str();
  command->add_flag("--watch", options->watch, "Write the page again and again while the runs go on, until Ctrl-C");
  command->add_flag("-q,--quiet", options->quiet, "Print nothing but errors");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
