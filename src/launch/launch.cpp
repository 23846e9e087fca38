#include "penstock/launch/launch.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>

#include "penstock/base/error.h"
#include "penstock/base/limits.h"
#include "penstock/base/types.h"

#include "attempt.h"
#include "signals.h"

namespace penstock {
namespace {

using launching::AttemptEnd;
using launching::SignalWatch;

constexpr int most_processes = 4096;
constexpr std::size_t longest_line_shown = 500;

std::string signal_meaning(int signal) {
  if (signal == SIGKILL) return "killed";
  const char* name = ::sigabbrev_np(signal);
  return name == nullptr ? "unknown" : fmt::format("SIG{}", name);
}

void check(const LaunchSettings& settings) {
  const auto within = [](const char* name, int value, int least, int most) {
    if (value < least || value > most)
      throw bad_input(fmt::format("{} is {}", name, value), fmt::format("{} to {}", least, most),
                      "correct the setting");
  };
  within("the number of processes", settings.processes, 1, most_processes);
  within("the number of restarts", settings.restarts, 0, 1'000'000);
  if (settings.elastic) within("the fewest processes", settings.fewest_processes, 1, settings.processes);
  for (const Milliseconds time : {settings.first_back_off, settings.longest_back_off, settings.stop_grace,
                                  settings.finish_grace, settings.standstill.value_or(Milliseconds{})})
    if (!(time.count >= 0 && time.count <= 1e9))
      throw bad_input(fmt::format("a pause or grace is {} ms", time.count), "0 to 1e9 ms", "correct the setting");
}

std::vector<std::string> command_of(const LaunchSettings& settings, const LaunchHooks& hooks,
                                    const LaunchAttempt& attempt) {
  std::vector<std::string> command = hooks.command ? hooks.command(attempt) : settings.command;
  if (command.empty() || command.front().empty())
    throw bad_input("an empty command for the workers", "a program and its arguments", "name a program");
  return command;
}

// Sleeps, unless a signal asks for the end: it is returned, else 0.
int pause(Milliseconds time, const SignalWatch& signals, const Clock& clock) {
  const Milliseconds end = clock.now() + time;
  while (true) {
    if (const int signal = signals.next()) return signal;
    const double left = std::ceil((end - clock.now()).count);
    if (left <= 0) return 0;
    pollfd polled = {signals.descriptor(), POLLIN, 0};
    ::poll(&polled, 1, static_cast<int>(std::min(left, 1e9)));
  }
}

Milliseconds back_off(const LaunchSettings& settings, int restart) {
  const double doubled = settings.first_back_off.count * std::exp2(restart);
  return {std::min(doubled, settings.longest_back_off.count)};
}

bool worth_another(const LaunchSettings& settings, const LaunchResult& result) {
  return result.attempt.number < settings.restarts && result.failure->exit_code != 2;
}

int processes_after(const LaunchSettings& settings, const LaunchAttempt& attempt, const AttemptEnd& end) {
  if (!settings.elastic) return attempt.processes;
  return std::max(settings.fewest_processes, attempt.processes - end.lost);
}

std::string stop_message(const LaunchResult& result) {
  std::string text = fmt::format("stopped by signal {} ({})", result.stop_signal, signal_meaning(result.stop_signal));
  if (!result.killed.empty())
    text += fmt::format("; rank{} {} did not leave in time and {} killed", result.killed.size() == 1 ? "" : "s",
                        fmt::join(result.killed, ", "), result.killed.size() == 1 ? "was" : "were");
  if (result.failure) text += "; " + to_string(*result.failure);
  return text;
}

std::string failure_message(const LaunchSettings& settings, const LaunchResult& result) {
  const std::string got = to_string(*result.failure);
  if (result.failure->exit_code == 2)
    return bad_input(got, "settings and data that every rank can use", "correct what the line names").what();
  const std::string after =
      settings.restarts == 0 ? "" : fmt::format(" after {}", counted(result.attempt.number, "restart"));
  return run_failed(got + after, "every rank to end with exit code 0",
                    "see the lines above, then resume the run, or allow more restarts")
      .what();
}

std::string restart_line(const LaunchSettings& settings, const LaunchResult& result, int processes, Milliseconds wait) {
  const std::string where =
      processes == result.attempt.processes ? "" : fmt::format(" with {}", counted(processes, "process"));
  return fmt::format("{}; restart {} of {}{} in {}", to_string(*result.failure), result.attempt.number + 1,
                     settings.restarts, where, to_string(wait));
}

LaunchResult stopped(LaunchResult result, int signal) {
  result.outcome = LaunchOutcome::Stopped;
  result.stop_signal = signal;
  result.message = stop_message(result);
  return result;
}

}  // namespace

std::string to_string(const WorkerEnd& end) {
  const std::string ending = end.signal != 0 ? fmt::format("by signal {} ({})", end.signal, signal_meaning(end.signal))
                                             : fmt::format("with exit code {}", end.exit_code.value_or(0));
  const std::string line = end.last_line.empty() ? "" : ": " + shortened(end.last_line, longest_line_shown);
  return fmt::format("rank {} ended {}{}", end.rank, ending, line);
}

int exit_code(const LaunchResult& result) {
  switch (result.outcome) {
    case LaunchOutcome::Finished:
      return 0;
    case LaunchOutcome::Stopped:
      // 143 says that everything was saved.
      if (!result.failure && result.killed.empty()) return 128 + result.stop_signal;
      break;
    case LaunchOutcome::Failed:
      break;
  }
  return result.failure && result.failure->exit_code == 2 ? 2 : 1;
}

LaunchResult launch(const LaunchSettings& settings, const LaunchHooks& hooks) {
  check(settings);
  // For each worker its end and its messages, and while one is started two pipes.
  constexpr int own_descriptors = 24;
  need_descriptors(own_descriptors + 2 * settings.processes,
                   fmt::format("a launcher of {}", counted(settings.processes, "process")));
  const SteadyClock clock;
  const SignalWatch signals;
  LaunchResult result;
  result.attempt = {0, settings.processes};
  while (true) {
    const std::vector<std::string> command = command_of(settings, hooks, result.attempt);
    const AttemptEnd end = launching::run_attempt(settings, hooks, result.attempt, command, signals, clock);
    result.failure = end.failure;
    result.killed = end.killed;
    if (end.stop_signal != 0) return stopped(std::move(result), end.stop_signal);
    if (!result.failure) return result;
    if (!worth_another(settings, result)) break;
    const int processes = processes_after(settings, result.attempt, end);
    const Milliseconds wait = back_off(settings, result.attempt.number);
    if (hooks.line) hooks.line(restart_line(settings, result, processes, wait));
    if (const int signal = pause(wait, signals, clock)) return stopped(std::move(result), signal);
    result.attempt = {result.attempt.number + 1, processes};
  }
  result.outcome = LaunchOutcome::Failed;
  result.message = failure_message(settings, result);
  return result;
}

}  // namespace penstock
