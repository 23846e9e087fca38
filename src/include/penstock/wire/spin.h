/// \file
/// Waiting without sleeping, which saves the wake-up of a thread.
#pragma once

#include <chrono>
#include <thread>

namespace penstock {

/// Gives the other thread of the core a turn.
inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

/// Spins while `waits()`, but not beyond `until`, and returns whether the wait is over. Yields from time to time: where
/// the system has put both ranks on one core, the sender must get it.
template <typename Waits>
bool spin_while(const Waits& waits, std::chrono::steady_clock::time_point until) {
  constexpr int turns_between_looks = 64;
  for (int turn = 1; waits(); ++turn) {
    if (turn % turns_between_looks != 0) {
      pause_core();
      continue;
    }
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace penstock
