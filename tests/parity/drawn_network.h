// Networks of the kinds that people bring, drawn from a seed: layers whose parameters are used in several places,
// outputs that no input leads to, views and odd layouts on the boundaries, in-place operations, random modules, hooks,
// frozen and unused parameters, and ties of two to five places.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "parity/small_networks.h"

namespace penstock {

inline constexpr int drawn_layers = 8;

struct DrawnNetwork {
  Network network;
  std::vector<std::string> kinds;  // by layer
  // How often hooks of all layers have fired together, in all that was built of this network.
  std::shared_ptr<std::atomic<std::int64_t>> hooks;
};

// The same seed gives the same network, to be built anew.
[[nodiscard]] DrawnNetwork draw_network(std::uint64_t seed);

// Inputs [samples, 3, 6] for it.
[[nodiscard]] std::vector<Microbatch> drawn_minibatch(int microbatches, std::int64_t samples, std::int64_t step);

// The same training in a loop of plain libtorch: no stages, no ranks, libtorch's autograd and SGD, a microbatch at a
// time.
[[nodiscard]] Trace train_plainly(const Network& network, int microbatches, std::int64_t samples, int steps,
                                  double learning_rate, double clip);

}  // namespace penstock
