#include "processes.h"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <sys/prctl.h>

#include "penstock/base/listening.h"
#include "penstock/launch/launch.h"
#include "penstock/launch/stop_signal.h"
#include "penstock/run/process.h"
#include "penstock/run/train.h"

namespace penstock::app {
namespace {

// What a start with fewer processes is told besides.
std::vector<std::string> cut_again(const TrainSettings& settings, int processes) {
  const RunLayout layout = layout_of_fewer(settings, settings.processes, processes);
  std::vector<std::string> arguments{"--stages", std::to_string(layout.stages), "--ranks", "0"};
  if (settings.replicas > 1) arguments.insert(arguments.end(), {"--replicas", std::to_string(layout.replicas)});
  // A single replica keeps all of the optimizer's state.
  if (settings.replicas > 1 && layout.replicas == 1) arguments.insert(arguments.end(), {"--zero", "0"});
  if (settings.cut != "uniform" && settings.cut != "parameters")
    arguments.insert(arguments.end(), {"--cut", "uniform"});
  return arguments;
}

}  // namespace

std::optional<ProcessSettings> own_process() {
  std::optional<ProcessSettings> process = process_of_environment();
  // For `top`, which would show the name of the link that it was started by; threads inherit it.
  if (process) ::prctl(PR_SET_NAME, fmt::format("penstock {}", process->process).c_str());
  return process;
}

int launch_processes(const TrainSettings& settings, const std::vector<std::string>& arguments, bool verbose) {
  if (!settings.listen.empty()) check_own_address("--listen", settings.listen);
  check_limits(settings, settings.processes);
  hold_stop_signals();
  ignore_broken_pipes();
  LaunchSettings launch_settings;
  launch_settings.processes = settings.processes;
  // They end together: each waits for the others' goodbye, which takes less than this.
  constexpr double goodbye_ms = 10'000;
  launch_settings.finish_grace = Milliseconds{settings.peer_timeout * 1000 + goodbye_ms};
  launch_settings.elastic = settings.elastic;
  launch_settings.hold_stop_signals = true;
  launch_settings.name = "penstock";
  launch_settings.verbose = verbose;
  // Once they have met they miss each other.
  launch_settings.standstill = Milliseconds{settings.peer_timeout * 1000};
  // Each loss may be survived once.
  launch_settings.restarts = settings.elastic ? std::max(settings.restarts, settings.processes - 1) : settings.restarts;
  LaunchHooks hooks;
  hooks.command = [&](const LaunchAttempt& attempt) {
    std::vector<std::string> command{"/proc/self/exe"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    if (attempt.number > 0) command.emplace_back("--resume");
    // The number of threads is a part of the numbers: it stays when ranks are lost.
    if (settings.elastic && settings.threads_per_rank == 0)
      command.insert(command.end(), {"--threads-per-rank", std::to_string(threads_of_ranks(settings))});
    if (attempt.processes < settings.processes) {
      const std::vector<std::string> again = cut_again(settings, attempt.processes);
      command.insert(command.end(), again.begin(), again.end());
    }
    return command;
  };
  // Not by fmt, which throws where the reader has gone: the run goes on.
  hooks.line = [](const std::string& line) { std::fputs((line + '\n').c_str(), stderr); };
  const LaunchResult result = launch(launch_settings, hooks);
  const int code = exit_code(result);
  // A run that was stopped and is saved has said so itself.
  const bool saved = result.outcome == LaunchOutcome::Stopped && code == 128 + result.stop_signal;
  if (result.outcome != LaunchOutcome::Finished && !saved)
    std::fputs(("penstock: " + result.message + '\n').c_str(), stderr);
  return code;
}

}  // namespace penstock::app
