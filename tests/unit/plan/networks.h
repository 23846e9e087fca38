/// \file
/// Networks of layers for the tests of plans.
#pragma once

#include <cmath>
#include <cstdint>
#include <fmt/format.h>
#include <random>
#include <vector>

#include "penstock/cost/cost.h"

namespace penstock {

/// A layer whose times grow with the samples from a fixed part on, measured at these sizes.
inline LayerCost layer_of(const std::string& name, double milliseconds, std::int64_t activation, std::int64_t boundary,
                          std::int64_t parameters, const std::vector<std::int64_t>& sizes) {
  LayerCost layer;
  layer.name = name;
  layer.parameter = layer.gradient = {parameters};
  layer.optimizer = {2 * parameters};
  layer.update = {0.01 * milliseconds};
  for (const std::int64_t samples : sizes) {
    const double time = milliseconds * (0.3 + 0.7 * static_cast<double>(samples));
    layer.sizes.push_back({.samples = samples,
                           .forward = {{time}},
                           .input_backward = {{time * 1.1}},
                           .weight_backward = {{time * 0.9}},
                           .activation = {activation * samples},
                           .boundary = {boundary * samples}});
  }
  return layer;
}

/// Layers whose times differ up to tenfold and more, and their sizes besides.
inline LayerCosts random_network(std::mt19937& random, int layers, double link_ms = 0.1) {
  std::lognormal_distribution<double> time(0, 0.8);
  std::uniform_int_distribution<std::int64_t> size(1, 1000);
  LayerCosts costs;
  for (int layer = 0; layer < layers; ++layer)
    costs.layers.push_back(layer_of(fmt::format("layer {}", layer), time(random), 1000 * size(random),
                                    100 * size(random), 500 * size(random), {1, 2, 4, 8, 16, 32}));
  costs.default_link = {{link_ms}, 200'000};
  costs.input_bytes_per_sample = 1000;
  return costs;
}

/// All layers alike.
inline LayerCosts even_network(int layers) {
  LayerCosts costs;
  for (int layer = 0; layer < layers; ++layer) {
    costs.layers.push_back(layer_of(fmt::format("layer {}", layer), 1, 1000, 100, 1000, {1, 2, 4, 8, 16, 32}));
    if (layer > 0) costs.layers.back().like = 0;
  }
  return costs;
}

}  // namespace penstock
