// Ends of the transport between processes, which here live in one.
#pragma once

#include <memory>
#include <vector>

#include "penstock/transport/transport.h"

namespace penstock::conformance {

using Ends = std::vector<std::unique_ptr<Transport>>;

// Whether Gloo stands in for NCCL, and the host's memory for that of devices: every tensor then goes beside the frames.
enum class Devices { None, StandIns };

// The ends of all ranks, by rank.
[[nodiscard]] Ends make_processes(int ranks, int ranks_per_process, bool shared_memory,
                                  Devices devices = Devices::None);

}  // namespace penstock::conformance
