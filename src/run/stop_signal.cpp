#include "penstock/launch/stop_signal.h"

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <unistd.h>

#include "penstock/run/train.h"

namespace penstock {
namespace {

// `timeout` and supervisors send a signal to a process and to its group, and a launcher passes on what its workers may
// have got already: that is one request.
constexpr std::int64_t one_request_ns = 1'000'000'000;

// A handler has nothing else to write to. 0 before the first signal.
std::atomic<std::int64_t> first_at{0};
std::atomic<int> received{0};
std::atomic<bool> killed_by_repeats{true};
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void remember(int signal) {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  const std::int64_t now = std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  std::int64_t first = 0;
  if (first_at.compare_exchange_strong(first, now)) {
    received = signal;
    return;
  }
  // The exit code of the first signal would say that the run is saved.
  if (killed_by_repeats && now - first >= one_request_ns) ::kill(::getpid(), SIGKILL);
}

bool is_ignored(int signal) {
  struct sigaction now = {};
  return ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

}  // namespace

void watch_stop_signals(Repeats repeats) {
  killed_by_repeats = repeats == Repeats::Kill;
  ignore_broken_pipes();
  struct sigaction action = {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART;
  sigset_t watched;
  sigemptyset(&watched);
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    if (signal == SIGHUP && is_ignored(signal)) continue;  // nohup
    ::sigaction(signal, &action, nullptr);
    sigaddset(&watched, signal);
  }
  // The launcher has held them back until now.
  ::pthread_sigmask(SIG_UNBLOCK, &watched, nullptr);
}

int stop_signal() { return received; }

}  // namespace penstock
