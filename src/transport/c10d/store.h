// The store through which the processes of a run find each other: c10d's TCPStore, kept by process 0.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "penstock/base/types.h"
#include "penstock/transport/c10d.h"

namespace penstock {

// At least one, so that a wait is never for ever.
inline std::chrono::milliseconds to_chrono(Milliseconds time) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::max(time.count, 1.0)));
}

// Connects to it, or keeps it where the settings say so. Nothing that is asked of it waits for more than about
// `join_timeout`, not even where its process has been stopped: then calls throw. \throws Error (RunFailed) where nobody
// answers in that time; (BadInput) for an address that cannot be.
[[nodiscard]] c10::intrusive_ptr<c10d::Store> open_store(const ProcessSettings& settings);

}  // namespace penstock
