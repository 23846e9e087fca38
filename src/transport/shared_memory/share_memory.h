// Which processes of a run share memory.
#pragma once

#include <memory>
#include <vector>

#include "penstock/transport/c10d.h"
#include "penstock/wire/shared_memory.h"

#include "transport/c10d/rendezvous.h"

namespace penstock {

// Memory with each of the other processes of this machine, by process; null with those of others, and if one of the two
// cannot have it or is not to. To be called by all processes.
[[nodiscard]] std::vector<std::unique_ptr<SharedMemory>> share_memory(const ProcessSettings& settings,
                                                                      const Exchange& exchange);

}  // namespace penstock
