#include "keeper.h"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/index.h"

namespace penstock::launching {
namespace {

// Only async-signal-safe calls: the launcher may have other threads. The end of the pipe is the launcher's.
[[noreturn]] void keep(int pipe, std::vector<pid_t>& groups) {
  ::setsid();  // neither Ctrl-C nor a signal to the launcher's group ends it
  ::prctl(PR_SET_NAME, "penstock-keeper");
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  // It must keep nothing open that is the launcher's: no lock, no socket, no reader's pipe.
  const int kept = ::dup2(pipe, 0);
  ::close_range(1, ~0U, 0);
  if (::chdir("/") != 0 || kept != 0) ::_exit(1);
  std::size_t known = 0;
  while (true) {
    pid_t group = 0;
    const ssize_t size = ::read(0, &group, sizeof group);
    if (size < 0 && errno == EINTR) continue;
    if (size != sizeof group) break;
    if (known < groups.size()) groups[known++] = group;
  }
  for (std::size_t i = 0; i < known; ++i) ::kill(-groups[i], SIGKILL);
  ::_exit(0);
}

}  // namespace

Keeper::Keeper(int groups) {
  std::vector<pid_t> room(as_size(groups));
  process_ = ::fork();
  if (process_ == 0) keep(pipe_.read_end.number(), room);
  if (process_ < 0) {
    const int code = errno;
    throw run_failed(fmt::format("cannot start a process that watches: {}", std::generic_category().message(code)),
                     "room for another process", "raise the limit (ulimit -u) or start fewer processes");
  }
  pipe_.read_end.close();
}

Keeper::~Keeper() {
  ::kill(process_, SIGKILL);
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace penstock::launching
