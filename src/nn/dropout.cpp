#include "penstock/nn/dropout.h"

#include <fmt/format.h>

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "penstock/base/error.h"

#include "nn/generators.h"

namespace penstock {

Dropout::Dropout(double probability) : probability_(probability) {
  if (!(probability >= 0 && probability < 1))
    throw bad_input(fmt::format("dropout is {}", probability), "a probability in [0, 1)", "choose one in that range");
}

at::Tensor Dropout::forward(const at::Tensor& input) const {
  if (!is_training() || probability_ == 0) return input;
  const double kept = 1 - probability_;
  // The generator is of this draw alone: when the layer is run again, it is made again.
  const c10::impl::ExcludeDispatchKeyGuard unseen(draw_key);
  const at::Tensor mask =
      at::empty_like(input).bernoulli_(kept, generator_from(DrawScope::next_key(), input.device())).div_(kept);
  return input * mask;
}

}  // namespace penstock
