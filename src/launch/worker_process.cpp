#include "worker_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "penstock/base/error.h"

#include "signals.h"

namespace penstock::launching {
namespace {

// What the child needs between fork and exec, made beforehand: there it may not allocate.
struct ChildPlan {
  const WorkerStart& start;
  const char* program;
  char** arguments;
  char** environment;
  int null_device;
  int messages;
  int failure;
  pid_t launcher;
};

// The launcher's signals are blocked until their actions are the default ones again: no handler of the launcher's
// program runs in a worker.
void restore_signals(const WorkerStart& start) {
  struct sigaction by_default = {};
  by_default.sa_handler = SIG_DFL;
  // SIGHUP stays ignored where it was (nohup); of a handler exec makes the default.
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE}) ::sigaction(signal, &by_default, nullptr);
  // A worker's group is never the terminal's foreground one: where the terminal stops others that write (stty tostop),
  // rank 0 would stand still.
  struct sigaction ignored = {};
  ignored.sa_handler = SIG_IGN;
  ::sigaction(SIGTTOU, &ignored, nullptr);
  sigset_t own = start.signal_mask;
  for (const int signal : stop_signals) (start.hold_stop_signals ? sigaddset : sigdelset)(&own, signal);
  ::pthread_sigmask(SIG_SETMASK, &own, nullptr);
}

[[noreturn]] void become_worker(const ChildPlan& plan) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Whoever lost the launcher before the kernel knew of the wish must see to it alone.
  if (::getppid() != plan.launcher) ::_exit(1);
  const pid_t self = ::getpid();
  bool good = ::write(plan.start.keeper_descriptor, &self, sizeof self) == sizeof self;
  good = good && ::dup2(plan.null_device, STDIN_FILENO) >= 0;
  good = good && (!plan.start.drop_output || ::dup2(plan.null_device, STDOUT_FILENO) >= 0);
  good = good && ::dup2(plan.messages, STDERR_FILENO) >= 0;
  for (const int descriptor : {plan.start.listen_descriptor, plan.start.joined_descriptor})
    if (descriptor >= 0) good = good && ::fcntl(descriptor, F_SETFD, 0) == 0;
  restore_signals(plan.start);
  if (good) ::execvpe(plan.program, plan.arguments, plan.environment);
  const int code = errno;
  const ssize_t ignored = ::write(plan.failure, &code, sizeof code);
  ::_exit(ignored == sizeof code ? 1 : 2);
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::string_view name_of(std::string_view variable) { return variable.substr(0, variable.find('=')); }

std::vector<std::string> merged_environment(const std::vector<std::string>& own) {
  std::vector<std::string> result = own;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const std::string_view name = name_of(*variable);
    // A launcher that was itself started by one must not hand on the descriptors that it was given.
    const bool replaced = name == "PENSTOCK_LISTEN_DESCRIPTOR" || name == "PENSTOCK_JOINED_DESCRIPTOR" ||
                          std::any_of(own.begin(), own.end(), [&](const auto& mine) { return name_of(mine) == name; });
    if (!replaced) result.emplace_back(*variable);
  }
  return result;
}

Error no_room(int code) {
  return run_failed(fmt::format("cannot start a process: {}", std::generic_category().message(code)),
                    "room for another process", "raise the limit (ulimit -u) or start fewer processes");
}

// Empty until the child has become the program; then 0, or why it could not.
int exec_failure(int descriptor) {
  int code = 0;
  while (true) {
    const ssize_t size = ::read(descriptor, &code, sizeof code);
    if (size < 0 && errno == EINTR) continue;
    return size == sizeof code ? code : 0;
  }
}

}  // namespace

WorkerProcess start_worker(const WorkerStart& start) {
  std::vector<std::string> arguments = start.command;
  if (!start.shown_name.empty()) arguments.front() = start.shown_name;
  std::vector<std::string> environment = merged_environment(start.environment);
  const std::vector<char*> argument_pointers = pointers(arguments);
  const std::vector<char*> environment_pointers = pointers(environment);
  const Descriptor null_device(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
  Pipe messages;
  Pipe failure;
  const ChildPlan plan{start,
                       start.command.front().c_str(),
                       const_cast<char**>(argument_pointers.data()),
                       const_cast<char**>(environment_pointers.data()),
                       null_device.number(),
                       messages.write_end.number(),
                       failure.write_end.number(),
                       ::getpid()};
  WorkerProcess worker;
  worker.id = ::fork();
  if (worker.id == 0) become_worker(plan);
  if (worker.id < 0) throw no_room(errno);
  failure.write_end.close();
  const int code = exec_failure(failure.read_end.number());
  if (code != 0) {
    reap(worker);
    if (code == EAGAIN || code == ENOMEM) throw no_room(code);
    throw bad_input(
        fmt::format("cannot start '{}': {}", shortened(start.command.front()), std::generic_category().message(code)),
        "a program that can be executed", "check its name and permissions");
  }
  try {
    // glibc 2.36 declares pidfd_open for C alone.
    const auto ended = static_cast<int>(::syscall(SYS_pidfd_open, worker.id, 0));
    worker.ended = Descriptor(ended, "a descriptor for a process");
  } catch (...) {
    signal_group(worker, SIGKILL);
    reap(worker);
    throw;
  }
  worker.messages = std::move(messages.read_end);
  ::fcntl(worker.messages.number(), F_SETFL, O_NONBLOCK);
  return worker;
}

void signal_group(const WorkerProcess& worker, int signal) { ::kill(-worker.id, signal); }

Ending ending_of(const WorkerProcess& worker) {
  siginfo_t info = {};
  while (::waitid(P_PID, static_cast<id_t>(worker.id), &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  // Without a code somebody else waited for it: nothing good may be concluded.
  if (info.si_code == 0) return {1, 0};
  if (info.si_code == CLD_EXITED) return {info.si_status, 0};
  return {std::nullopt, info.si_status};
}

bool is_stopped(const WorkerProcess& worker) {
  siginfo_t info = {};
  return ::waitid(P_PID, static_cast<id_t>(worker.id), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == worker.id;
}

void reap(const WorkerProcess& worker) {
  siginfo_t info = {};
  while (::waitid(P_PID, static_cast<id_t>(worker.id), &info, WEXITED) < 0 && errno == EINTR) {
  }
}

}  // namespace penstock::launching
