// Why a run was given up.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>

#include "penstock/base/types.h"
#include "penstock/transport/transport.h"

namespace penstock {

// The first reason, which stays. Thread-safe.
class FirstAbort {
 public:
  // Whether this one is the first.
  bool keep(const std::string& reason, bool peer_is_lost);
  [[nodiscard]] bool is_there() const { return is_there_; }
  // \throws Aborted if it is there
  void check() const;
  // The same, and waits until it is there, but no longer than that.
  void check_within(Milliseconds longest);

 private:
  std::atomic<bool> is_there_{false};
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::string reason_;
  bool peer_is_lost_ = false;
};

}  // namespace penstock
