#include "processes.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <system_error>

#include "penstock/base/file.h"
#include "penstock/base/listening.h"
#include "penstock/launch/launch.h"
#include "penstock/launch/stop_signal.h"
#include "penstock/run/train.h"
#include "penstock/settings/checks.h"

namespace penstock::app {
namespace {

// The settings of a start after the first, with so many processes.
TrainSettings settings_again(TrainSettings settings, int processes) {
  Layout& layout = settings.layout;
  // The number of threads is a part of the numbers: it stays when ranks are lost.
  if (settings.processes.elastic) layout.threads_per_rank = threads_of(layout, ranks_of(layout));
  if (processes < settings.processes.count) layout = layout_on_fewer(layout, settings.processes.count, processes);
  settings.output.resume = true;
  return settings;
}

}  // namespace

std::optional<ProcessSettings> own_process() {
  std::optional<ProcessSettings> process = process_of_environment();
  // For `top`, which would show the name of the link that it was started by; threads inherit it.
  if (process) ::prctl(PR_SET_NAME, fmt::format("penstock {}", process->process).c_str());
  return process;
}

int launch_processes(const TrainSettings& settings, const std::vector<std::string>& arguments, bool verbose) {
  if (!settings.processes.listen.empty()) check_own_address("--listen", settings.processes.listen);
  check_limits(settings, settings.processes.count);
  hold_stop_signals();
  ignore_broken_pipes();
  LaunchSettings launch_settings;
  launch_settings.processes = settings.processes.count;
  // They end together: each waits for the others' goodbye, which takes less than this.
  constexpr double goodbye_ms = 10'000;
  launch_settings.finish_grace = Milliseconds{settings.processes.peer_timeout * 1000 + goodbye_ms};
  launch_settings.elastic = settings.processes.elastic;
  launch_settings.hold_stop_signals = true;
  launch_settings.name = "penstock";
  launch_settings.verbose = verbose;
  // Once they have met they miss each other.
  launch_settings.standstill = Milliseconds{settings.processes.peer_timeout * 1000};
  // Each loss may be survived once.
  launch_settings.restarts = settings.processes.elastic
                                 ? std::max(settings.processes.restarts, settings.processes.count - 1)
                                 : settings.processes.restarts;
  const std::filesystem::path restart_file = std::filesystem::path(settings.output.folder) / "restart.toml";
  LaunchHooks hooks;
  hooks.command = [&](const LaunchAttempt& attempt) {
    std::vector<std::string> command{"/proc/self/exe"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    if (attempt.number > 0) {
      std::filesystem::create_directories(settings.output.folder);
      write_file_atomically(restart_file, to_toml(settings_again(settings, attempt.processes), TomlExtent::OfTheStart));
      command.insert(command.end(), {restart_option, restart_file.string()});
    }
    return command;
  };
  // Not by fmt, which throws where the reader has gone: the run goes on.
  hooks.line = [](const std::string& line) { std::fputs((line + '\n').c_str(), stderr); };
  const LaunchResult result = launch(launch_settings, hooks);
  std::error_code ignored;
  std::filesystem::remove(restart_file, ignored);
  const int code = exit_code(result);
  // A run that was stopped and is saved has said so itself.
  const bool saved = result.outcome == LaunchOutcome::Stopped && code == 128 + result.stop_signal;
  if (result.outcome != LaunchOutcome::Finished && !saved)
    std::fputs(("penstock: " + result.message + '\n').c_str(), stderr);
  return code;
}

}  // namespace penstock::app
