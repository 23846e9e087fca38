#include "models/norm.h"

#include <ATen/ATen.h>

namespace penstock {

Norm::Norm(NormKind kind, std::int64_t width, double epsilon, const Initial& initial)
    : width_(width), epsilon_(epsilon), weight_(register_parameter("weight", initial.constant({width}, 1))) {
  if (kind == NormKind::LayerNorm) bias_ = register_parameter("bias", initial.constant({width}, 0));
}

at::Tensor Norm::forward(const at::Tensor& input) {
  if (bias_.defined()) return at::layer_norm(input, {width_}, weight_, bias_, epsilon_);
  // Squares of 16 bits overflow: in float32, and rounded before the weight as the published models were trained.
  const at::Tensor wide = at::isReducedFloatingType(input.scalar_type()) ? input.to(at::kFloat) : input;
  const at::Tensor mean_square = wide.pow(2).mean(-1, /*keepdim=*/true);
  return weight_ * (wide * at::rsqrt(mean_square + epsilon_)).to(input.scalar_type());
}

}  // namespace penstock
