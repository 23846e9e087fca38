// The launcher's own signals, for as long as it runs.
#pragma once

#include <array>
#include <csignal>

#include "descriptor.h"

namespace penstock::launching {

// What asks a run to stop: a terminal that closes, Ctrl-C, and everybody else.
inline constexpr std::array<int, 3> stop_signals = {SIGHUP, SIGINT, SIGTERM};
[[nodiscard]] sigset_t stop_signal_set();
[[nodiscard]] bool is_stop_signal(int signal);

// Holds the stop signals back so that they are read from a descriptor instead, and lets children stay until they are
// waited for. Everything is put back by the destructor.
class SignalWatch {
 public:
  SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  SignalWatch(SignalWatch&&) = delete;
  SignalWatch& operator=(SignalWatch&&) = delete;
  ~SignalWatch();

  // Readable when a signal waits.
  [[nodiscard]] int descriptor() const { return descriptor_.number(); }
  // The next signal that waits, 0 if none does.
  [[nodiscard]] int next() const;
  // What was blocked before, for the children.
  [[nodiscard]] const sigset_t& mask_before() const { return mask_before_; }

 private:
  sigset_t mask_before_ = {};
  struct sigaction child_before_ = {};
  Descriptor descriptor_;
};

}  // namespace penstock::launching
