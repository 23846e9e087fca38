// Which devices of a run reach each other.
#pragma once

#include <memory>

#include "penstock/transport/c10d.h"

#include "transport/c10d/rendezvous.h"
#include "transport/device/direct.h"

namespace penstock {

// Every process says what its ranks' devices are. Null if none of this process's reaches another process's. To be
// called by all processes. \throws Error (BadInput) for one that libtorch does not know.
[[nodiscard]] std::unique_ptr<DirectChannels> reach_devices(const DirectBackend& backend,
                                                            const ProcessSettings& settings, const Exchange& exchange);

}  // namespace penstock
