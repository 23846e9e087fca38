#include "penstock/nn/weight_type.h"

#include <utility>

#include <ATen/ATen.h>

namespace penstock {

Network with_weights_in(Network network, Precision type) {
  if (type == Precision::Float32) return network;
  const at::ScalarType rounded = type == Precision::BFloat16 ? at::kBFloat16 : at::kHalf;
  for (LayerSpec& spec : network.layers) {
    spec.build = [build = std::move(spec.build), rounded] {
      Layer built = build();
      const at::NoGradGuard no_graph;
      for (const at::Tensor& parameter : built.module().parameters())
        if (parameter.scalar_type() == at::kFloat) parameter.set_data(parameter.to(rounded));
      return built;
    };
  }
  return network;
}

}  // namespace penstock
