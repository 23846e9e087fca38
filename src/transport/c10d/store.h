// The store through which the processes of a run find each other: c10d's TCPStore, kept by process 0.
#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "penstock/transport/process_settings.h"

namespace penstock {

// Connects to it, or keeps it where the settings say so. Nothing that is asked of it waits for more than about
// `join_timeout`, not even where its process has been stopped: then calls throw. \throws Error (RunFailed) where nobody
// answers in that time; (BadInput) for an address that cannot be.
[[nodiscard]] c10::intrusive_ptr<c10d::Store> open_store(const ProcessSettings& settings);

}  // namespace penstock
