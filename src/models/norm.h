// The norms of decoders.
#pragma once

#include <cstdint>

#include <torch/nn/module.h>

#include "penstock/models/decoder_settings.h"

#include "models/initial.h"

namespace penstock {

// Over the last dimension.
class Norm : public torch::nn::Module {
 public:
  Norm(NormKind kind, std::int64_t width, double epsilon, const Initial& initial);

  at::Tensor forward(const at::Tensor& input);

 private:
  std::int64_t width_;
  double epsilon_;
  at::Tensor weight_;
  at::Tensor bias_;  // undefined: the root mean square alone
};

}  // namespace penstock
