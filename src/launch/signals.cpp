#include "signals.h"

#include <algorithm>
#include <sys/signalfd.h>
#include <unistd.h>

namespace penstock::launching {
namespace {

// One that is ignored (nohup) asks for nothing.
bool is_ignored(int signal) {
  struct sigaction now = {};
  return ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

}  // namespace

sigset_t stop_signal_set() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : stop_signals) sigaddset(&signals, signal);
  return signals;
}

bool is_stop_signal(int signal) {
  return std::find(stop_signals.begin(), stop_signals.end(), signal) != stop_signals.end();
}

SignalWatch::SignalWatch() {
  sigset_t signals = stop_signal_set();
  if (is_ignored(SIGHUP)) sigdelset(&signals, SIGHUP);
  // The descriptor comes first: it may throw, and nothing is to be put back then.
  descriptor_ = Descriptor(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), "a descriptor for signals");
  ::pthread_sigmask(SIG_BLOCK, &signals, &mask_before_);
  // If SIGCHLD is ignored, the kernel reaps the children, and how they ended is lost.
  struct sigaction by_default = {};
  by_default.sa_handler = SIG_DFL;
  ::sigaction(SIGCHLD, &by_default, &child_before_);
}

SignalWatch::~SignalWatch() {
  ::sigaction(SIGCHLD, &child_before_, nullptr);
  ::pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

int SignalWatch::next() const {
  signalfd_siginfo received = {};
  if (::read(descriptor_.number(), &received, sizeof received) != sizeof received) return 0;
  return static_cast<int>(received.ssi_signo);
}

}  // namespace penstock::launching
