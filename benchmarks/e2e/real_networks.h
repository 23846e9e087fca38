// The networks that predictions are held against: gpt, mlp and convnet of three sizes each, with data of their shapes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/exec/microbatch.h"
#include "penstock/nn/networks.h"
#include "penstock/pipeline/step_overhead.h"
#include "penstock/profile/profile.h"

namespace penstock {

struct RealNetwork {
  std::string name;
  Network network;
  std::function<Microbatch(std::int64_t samples)> microbatch;
};

inline std::vector<RealNetwork> real_networks() {
  const auto tokens = [](std::int64_t context) {
    return [context](std::int64_t samples) {
      const at::Tensor text = at::randint(256, {samples, context}, at::kLong);
      return Microbatch{{text}, {text}};
    };
  };
  const auto images = [](std::int64_t samples) {
    return Microbatch{{at::rand({samples, 1, 28, 28})}, {at::randint(10, {samples}, at::kLong)}};
  };
  std::vector<RealNetwork> networks;
  for (const auto& [layers, width, context] : {std::tuple{4, 64, 32}, {8, 128, 64}, {6, 256, 64}})
    networks.push_back({"gpt " + std::to_string(width),
                        make_gpt({.layers = layers, .width = width, .heads = 4, .context = context}), tokens(context)});
  for (const auto& [layers, width] : {std::pair{6, 256}, {8, 1024}, {6, 2048}})
    networks.push_back({"mlp " + std::to_string(width), make_mlp({.layers = layers, .width = width}), images});
  for (const auto& [layers, width] : {std::pair{4, 16}, {6, 32}, {8, 64}})
    networks.push_back({"convnet " + std::to_string(width),
                        make_convnet({.layers = layers, .width = width, .groups = width / 8}), images});
  return networks;
}

/// The costs of its layers and of a step on so many ranks of one thread each, as `penstock plan` measures them.
inline LayerCosts profiled_costs(const RealNetwork& of, int ranks) {
  ProfileSettings settings;
  settings.ranks = ranks;
  settings.sizes = {2, 4, 8, 16};
  settings.microbatch = of.microbatch;
  settings.optimizer = OptimizerSettings{};
  LayerCosts costs = profile_layers(of.network, settings);
  costs.step_overhead = measured_step_overhead(ranks, settings.threads_per_rank);
  return costs;
}

}  // namespace penstock
