/// \file
/// The profiler: what the layers of a network cost on this machine, and its links, measured as a run would meet them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <c10/core/Device.h>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"
#include "penstock/exec/microbatch.h"
#include "penstock/nn/layer.h"
#include "penstock/nn/precision.h"
#include "penstock/optim/optimizer.h"

namespace penstock {

/// How a network is measured.
struct ProfileSettings {
  /// Threads that measure at once, each on its own device and with its own copy of the layer: as many as the run has
  /// ranks, so that they contend for the machine as there.
  int ranks = 1;
  std::vector<at::Device> devices;     ///< of the ranks in turn; empty: the host
  int threads_per_rank = 1;            ///< intra-op threads
  std::vector<std::int64_t> sizes{1};  ///< of microbatches, in samples, ascending
  Precision precision = Precision::Float32;
  Precision weights = Precision::Float32;  ///< as `PipelineSettings::weights`
  std::uint64_t seed = 0;                  ///< of weights and random layers
  /// A microbatch of so many samples. Called on the caller's thread, once for each size.
  std::function<Microbatch(std::int64_t samples)> microbatch;
  /// Whose state is counted and whose update is timed; none: updates are free.
  std::optional<OptimizerSettings> optimizer = {};
  /// The time for each kind of layer and size on all ranks together, spent in rounds over all of them. If the median is
  /// not known to 2 % by then, up to three times as much is spent, in at most twenty rounds.
  Milliseconds budget{300};
};

/// Measures each kind of layer for each shape of its inputs at every size, after a warm-up: forward, backward, and the
/// backward in two halves. Of each the time is the median over the rounds of the mean within a round, over all ranks,
/// of passes after a wait or of passes in a row, whichever is longer. Measures too how much ranks take from each other
/// (`LayerCosts::contention`), and how long they wait where they meet, which is the least latency of a link
/// (decision 44). A round goes over all layers, so that a machine that is slow for a while is slow for all of them; at
/// least three are made, and `LayerCosts::measured` says how many and how well the median is known by then. Bytes as
/// `MemoryMeter` counts them in a run (on a device as its caching allocator does, which cannot tell the ranks that
/// share it apart). A rank holds one layer at a time, builds each that it measures anew in every round, and on the host
/// reads between two passes as much memory as the other layers of a rank go through, so that a layer finds the caches
/// as in a run. The first layer's input counts on a device only: on the host it is the caller's. Layers are named by
/// number and name ("3 block"). Descriptions and ranks are left empty.
/// \throws Error (BadInput) for settings out of range, and as `check_network`; (RunFailed) and whatever a layer throws.
[[nodiscard]] LayerCosts profile_layers(const Network& network, const ProfileSettings& settings);

/// From messages of several sizes that two ranks send to and fro: half of a round trip of the smallest is the latency.
/// Between threads a message is a reference and its size costs nothing: then the bandwidth is unlimited. Immediate
/// where there is one rank.
[[nodiscard]] LinkCost profile_link(const ProfileSettings& settings);

/// What a profile depends on of this machine: processor, cores, libtorch's version, and of the settings devices, ranks
/// and threads.
[[nodiscard]] Description describe_machine(const ProfileSettings& settings);

}  // namespace penstock
