/// \file
/// Starts the processes of a run on this machine, watches them, and starts them again after a failure.
///
///     LaunchSettings settings;
///     settings.processes = 4;
///     settings.restarts = 2;
///     LaunchHooks hooks;
///     hooks.command = [&](const LaunchAttempt& attempt) {
///       std::vector<std::string> command = {"/proc/self/exe", "train", "--out", "runs/first"};
///       if (attempt.number > 0) command.push_back("--resume");
///       return command;
///     };
///     hooks.line = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
///     const LaunchResult result = launch(settings, hooks);
///     if (result.outcome != LaunchOutcome::Finished) fmt::print(stderr, "penstock: {}\n", result.message);
///     return exit_code(result);
///
/// A worker reads who it is with `worker_environment` (environment.h). docs/launching.md says the same for users.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/types.h"

namespace penstock {

/// What is started, and what is done when it fails.
struct LaunchSettings {
  /// The program and arguments of one worker, the same for every rank; a name without '/' is looked for in PATH. Used
  /// where `LaunchHooks::command` is empty.
  std::vector<std::string> command = {};
  /// What `ps` shows of a worker in place of the program's path: with "penstock", rank 3 of 8 shows as "penstock worker
  /// 3 of 8", and its arguments follow. It is the worker's `argv[0]`. Empty: the path.
  std::string name = {};
  /// How many workers, one for each rank: 1 to 4096.
  int processes = 1;
  /// How often the run is started again after a failure, at least 0.
  int restarts = 0;
  /// The pause before the first restart; it doubles with every further one …
  Milliseconds first_back_off = {1'000};
  /// … up to this.
  Milliseconds longest_back_off = {60'000};
  /// How long workers may take to leave after SIGTERM or SIGINT before SIGKILL ends them.
  Milliseconds stop_grace = {30'000};
  /// How long workers may take to end when the first has ended well. A worker that is stopped (SIGSTOP) would never
  /// end, and no other worker is left to notice: it is killed, and the attempt has failed.
  Milliseconds finish_grace = {60'000};
  /// Where rank 0 listens for the others: an address or name of this machine, with a port that the kernel chooses.
  std::string address = "127.0.0.1";
  /// After a failure, go on with as many workers as are left, and not with as many as before.
  bool elastic = false;
  /// With `elastic`: never fewer than this.
  int fewest_processes = 1;
  /// Workers begin with SIGHUP, SIGINT and SIGTERM blocked, and unblock them once they can take them: none is lost, and
  /// none ends a worker while it starts.
  bool hold_stop_signals = false;
  /// How long a worker may be stopped (SIGSTOP) before the workers have met; it is killed then, and the attempt has
  /// failed. They have met when none of them holds the descriptor PENSTOCK_JOINED_DESCRIPTOR any more. Afterwards they
  /// must find out themselves. Empty: for ever.
  std::optional<Milliseconds> standstill = {};
  /// Pass on every rank's standard output and every line of its standard error.
  bool verbose = false;

  friend bool operator==(const LaunchSettings&, const LaunchSettings&) = default;
};

/// One start of all workers.
struct LaunchAttempt {
  int number = 0;     ///< 0 for the first, then 1, 2, …
  int processes = 1;  ///< How many workers it has.

  friend bool operator==(const LaunchAttempt&, const LaunchAttempt&) = default;
};

/// What the caller is asked and told, all in the thread that called `launch`. Each may be empty.
struct LaunchHooks {
  /// The program and arguments of the workers of an attempt. What it throws, `launch` throws; no worker runs then.
  std::function<std::vector<std::string>(const LaunchAttempt&)> command = {};
  /// A line for standard error, without its end: of a worker ("rank 2: penstock: …"), or of the launcher about a
  /// restart.
  std::function<void(const std::string& line)> line = {};
  /// A worker was started. For tests and for those who write process ids down.
  std::function<void(int rank, int process_id)> started = {};
};

/// How a worker ended.
struct WorkerEnd {
  int rank = 0;
  /// What it returned; empty if a signal ended it.
  std::optional<int> exit_code = {};
  /// The signal that ended it, 0 if none did.
  int signal = 0;
  /// The last line about a failure on its standard error, else the last line; empty if it wrote none.
  std::string last_line = {};

  friend bool operator==(const WorkerEnd&, const WorkerEnd&) = default;
};

/// "rank 2 ended by signal 9 (killed)", "rank 1 ended with exit code 1: penstock: …".
[[nodiscard]] std::string to_string(const WorkerEnd& end);

/// How a launch ended.
enum class LaunchOutcome {
  Finished,  ///< Every worker of the last attempt returned 0.
  Failed,    ///< The last attempt failed, and no restart was left or would have helped.
  Stopped,   ///< SIGHUP, SIGINT or SIGTERM asked the launcher or a worker for the end.
};

/// What became of a run.
struct LaunchResult {
  LaunchOutcome outcome = LaunchOutcome::Finished;
  /// The last attempt.
  LaunchAttempt attempt = {};
  /// The failure of the last attempt: the first in time, or one with exit code 2 (bad input), which explains the
  /// others.
  std::optional<WorkerEnd> failure = {};
  /// The signal that asked for the end, 0 if none did.
  int stop_signal = 0;
  /// Ranks that were still there after `stop_grace` in the last attempt and were killed.
  std::vector<int> killed = {};
  /// One line that says all this; empty if the run finished.
  std::string message = {};
};

/// What a program returns after such a launch: 0; 128 + the signal where all workers left as they were asked to; 2
/// after bad input; else 1.
[[nodiscard]] int exit_code(const LaunchResult& result);

/// Starts `processes` workers and returns when all of them have ended, they and what they started, at the latest
/// `stop_grace` after the first failure or signal.
///
/// Each worker has a process group of its own, standard input from /dev/null, and these variables: RANK, LOCAL_RANK,
/// WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, PENSTOCK_RUN_IDENTITY (16 hexadecimal digits, random, new
/// for each attempt), PENSTOCK_ATTEMPT; and rank 0 alone PENSTOCK_LISTEN_DESCRIPTOR, the number of a socket that
/// listens on MASTER_PORT already. Rank 0 owns that socket and should set FD_CLOEXEC on it; nobody else holds it, so
/// the port is free when rank 0 has ended. Standard output is inherited by rank 0 and dropped for the others. Standard
/// error comes back by `LaunchHooks::line`: all of rank 0, and of the others the lines about warnings and errors, or
/// the last lines of the one that failed first; the same line from several ranks once.
///
/// A worker that ends with a signal or another exit code than 0 ends the attempt: the others get SIGTERM (and SIGCONT),
/// then SIGKILL. Exit code 2 (bad input) is never tried again. SIGHUP (unless it is ignored), SIGINT and SIGTERM of the
/// launcher are passed on, and end the launch; a second one, a second or more after the first, kills the workers at
/// once. A worker that returns 128 + one of these signals was asked to stop by somebody else: that too is passed on and
/// ends the launch. If the launcher itself is killed, the kernel kills the workers, and a watching process what
/// these have started.
///
/// Linux 5.9 or newer. While it runs, SIGHUP, SIGINT and SIGTERM are blocked in the calling thread and SIGCHLD has its
/// default action; both are as before afterwards. Other threads of the program must have these signals blocked, must
/// not wait for children in general (`waitpid(-1)`), and must not change the environment. Several launches may run at a
/// time, each in a thread; a signal then stops one of them.
/// \throws Error (BadInput) for settings out of range, an address that is not this machine's, or a program that cannot
/// be started; Error (RunFailed) where the system has no room for another process or descriptor. No worker runs then.
[[nodiscard]] LaunchResult launch(const LaunchSettings& settings, const LaunchHooks& hooks = {});

}  // namespace penstock
