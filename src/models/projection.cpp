#include "models/projection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ATen.h>

#include "models/adapters.h"

namespace penstock {

Projection::Projection(std::int64_t in, const std::vector<ProjectionPart>& parts, bool bias, double deviation,
                       const std::optional<LoraSettings>& lora, const Initial& initial) {
  const std::int64_t out = std::accumulate(parts.begin(), parts.end(), std::int64_t{0},
                                           [](std::int64_t sum, const auto& part) { return sum + part.rows; });
  weight_ = register_parameter("weight", initial.normal({out, in}, deviation));
  if (bias) bias_ = register_parameter("bias", initial.constant({out}, 0));
  const auto adapts = [&](const ProjectionPart& part) { return lora && is_target(*lora, part.name); };
  if (std::none_of(parts.begin(), parts.end(), adapts)) return;
  scale_ = lora->alpha / static_cast<double>(lora->rank);
  // Drawn also where all other weights are read: the product begins as zero.
  const Initial drawn(true);
  for (const ProjectionPart& part : parts) {
    Part own{part.rows, {}};
    if (adapts(part))
      own.adapter = {register_parameter(part.name + narrow_suffix,
                                        drawn.normal({lora->rank, in}, 1 / std::sqrt(3.0 * static_cast<double>(in)))),
                     register_parameter(part.name + widen_suffix, drawn.constant({part.rows, lora->rank}, 0))};
    parts_.push_back(std::move(own));
  }
}

at::Tensor Projection::forward(const at::Tensor& input) {
  at::Tensor whole = at::linear(input, weight_, bias_);
  if (parts_.empty()) return whole;
  std::vector<at::Tensor> adapted;
  std::int64_t first = 0;
  for (const Part& part : parts_) {
    at::Tensor own = whole.narrow(-1, first, part.rows);
    first += part.rows;
    if (part.adapter) own = own + at::linear(at::linear(input, part.adapter->narrow), part.adapter->widen) * scale_;
    adapted.push_back(std::move(own));
  }
  return adapted.size() == 1 ? adapted.front() : at::cat(adapted, -1);
}

}  // namespace penstock
