#include "processes.h"

#include <algorithm>
#include <cstdio>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "penstock/base/listening.h"
#include "penstock/launch/environment.h"
#include "penstock/launch/launch.h"
#include "penstock/train/train.h"

#include "stop_signal.h"

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
  const std::optional<WorkerEnvironment> environment = worker_environment();
  if (!environment) return std::nullopt;
  ProcessSettings settings;
  settings.process = environment->rank;
  settings.processes = environment->world_size;
  settings.address = environment->master_address;
  settings.port = environment->master_port;
  if (!environment->run_identity.empty())
    settings.run_identity = fmt::format("{}/{}", environment->run_identity, environment->attempt);
  if (environment->listen_descriptor) {
    settings.listening_socket = *environment->listen_descriptor;
    ::fcntl(settings.listening_socket, F_SETFD, FD_CLOEXEC);
  }
  if (environment->joined_descriptor) ::fcntl(*environment->joined_descriptor, F_SETFD, FD_CLOEXEC);
  // torchrun's agent has a store of its own where the variables point to.
  settings.store_is_elsewhere = environment_variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  return settings;
}

void say_joined() {
  const std::optional<WorkerEnvironment> environment = worker_environment();
  if (environment && environment->joined_descriptor) ::close(*environment->joined_descriptor);
}

int launch_processes(const TrainSettings& settings, const std::vector<std::string>& arguments) {
  if (!settings.listen.empty()) check_own_address("--listen", settings.listen);
  check_limits(settings, settings.processes);
  hold_stop_signals();
  LaunchSettings launch_settings;
  launch_settings.processes = settings.processes;
  // They end together: each waits for the others' goodbye, which takes less than this.
  constexpr double goodbye_ms = 10'000;
  launch_settings.finish_grace = Milliseconds{settings.peer_timeout * 1000 + goodbye_ms};
  launch_settings.elastic = settings.elastic;
  launch_settings.hold_stop_signals = true;
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
  hooks.line = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  const LaunchResult result = launch(launch_settings, hooks);
  const int code = exit_code(result);
  // A run that was stopped and is saved has said so itself.
  const bool saved = result.outcome == LaunchOutcome::Stopped && code == 128 + result.stop_signal;
  if (result.outcome != LaunchOutcome::Finished && !saved) fmt::print(stderr, "penstock: {}\n", result.message);
  return code;
}

}  // namespace penstock::app
