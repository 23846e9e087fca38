/// \file
/// Threads, where the system may have no room for another.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {

/// The error for a thread that could not be started. It names the limits that may be the reason.
[[nodiscard]] Error no_room_for_thread(const std::system_error& reason);

/// A thread that does `work`. A caller that starts several must end the earlier ones itself if a later one throws.
/// \throws Error (RunFailed) if the system has no room for it.
template <class Work>
[[nodiscard]] std::thread start_thread(Work&& work) {
  try {
    return std::thread(std::forward<Work>(work));
  } catch (const std::system_error& reason) {
    throw no_room_for_thread(reason);
  }
}

}  // namespace penstock
