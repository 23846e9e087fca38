#include "transport/c10d/first_abort.h"

#include <chrono>

namespace penstock {

bool FirstAbort::keep(const std::string& reason, bool peer_is_lost) {
  {
    const std::scoped_lock lock(mutex_);
    if (is_there_) return false;
    reason_ = reason;
    peer_is_lost_ = peer_is_lost;
    is_there_ = true;
  }
  changed_.notify_all();
  return true;
}

void FirstAbort::check() const {
  if (!is_there_) return;
  const std::scoped_lock lock(mutex_);
  throw Aborted(reason_, peer_is_lost_);
}

void FirstAbort::check_within(Milliseconds longest) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::duration<double, std::milli>(longest.count),
                      [this] { return is_there_.load(); });
  }
  check();
}

}  // namespace penstock
