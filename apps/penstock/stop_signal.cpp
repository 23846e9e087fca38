#include "stop_signal.h"

#include <csignal>

namespace penstock::app {
namespace {

volatile std::sig_atomic_t received = 0;

void remember(int signal) {
  received = signal;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void watch_stop_signals() {
  // Whoever reads the progress may go: the run does not end for that, and what it makes is saved.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, remember);
  std::signal(SIGTERM, remember);
}

bool stop_requested() { return received != 0; }

int stop_exit_code() { return 128 + static_cast<int>(received); }

}  // namespace penstock::app
