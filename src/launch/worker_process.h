// One worker: how it is started, and what the launcher holds of it.
#pragma once

#include <csignal>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "descriptor.h"

namespace penstock::launching {

// Everything that a worker is given.
struct WorkerStart {
  std::vector<std::string> command;
  // Its argv[0]; empty: the program's name, which `command` begins with.
  std::string shown_name;
  // "NAME=value"; instead of what the launcher's own environment says about these names.
  std::vector<std::string> environment;
  // Inherited by the worker, -1 for none.
  int listen_descriptor = -1;
  // Where the worker tells the keeper its process id.
  int keeper_descriptor = -1;
  // Inherited too, -1 for none: the worker closes it when it has met the others.
  int joined_descriptor = -1;
  bool drop_output = false;
  sigset_t signal_mask = {};
  // Whether the worker begins with the stop signals blocked.
  bool hold_stop_signals = false;
};

struct WorkerProcess {
  pid_t id = -1;
  // Readable when the process has ended.
  Descriptor ended;
  // The process's standard error, not blocking.
  Descriptor messages;
};

// Starts a worker in a process group of its own, which it leads. \throws Error (BadInput) if the program cannot be
// executed; Error (RunFailed) where there is no room for another process.
[[nodiscard]] WorkerProcess start_worker(const WorkerStart& start);

// Sends a signal to the worker and all of its group. The worker must not have been waited for.
void signal_group(const WorkerProcess& worker, int signal);

// How it ended.
struct Ending {
  std::optional<int> exit_code;
  int signal = 0;
};

// For a worker that has ended. It stays a zombie, so that its number, which is its group's, names nobody else.
[[nodiscard]] Ending ending_of(const WorkerProcess& worker);

// Whether it was stopped (SIGSTOP and its like) and was not made to go on since.
[[nodiscard]] bool is_stopped(const WorkerProcess& worker);

// Waits for the worker's end and forgets the process.
void reap(const WorkerProcess& worker);

}  // namespace penstock::launching
