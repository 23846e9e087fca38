#include "penstock/nn/dropout.h"

#include <fmt/format.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "penstock/base/error.h"
#include "penstock/base/random.h"

namespace penstock {
namespace {

thread_local DrawScope* innermost_draws = nullptr;

at::Generator generator_for(std::uint64_t key, at::Device device) {
  if (device.is_cpu()) return at::detail::createCPUGenerator(key);
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(key);
  return generator;
}

}  // namespace

DrawScope::DrawScope(const DrawPlace& place) : place_(place), outer_(innermost_draws) { innermost_draws = this; }

DrawScope::~DrawScope() { innermost_draws = outer_; }

std::uint64_t DrawScope::next_key() {
  if (innermost_draws == nullptr)
    throw run_failed("a random layer was computed outside a pipeline", "a DrawScope on this thread",
                     "open one that names seed, step, microbatch and layer");
  const DrawPlace& place = innermost_draws->place_;
  return mix_key({place.seed, static_cast<std::uint64_t>(place.step), static_cast<std::uint64_t>(place.microbatch),
                  static_cast<std::uint64_t>(place.layer), innermost_draws->draws_++});
}

Dropout::Dropout(double probability) : probability_(probability) {
  if (!(probability >= 0 && probability < 1))
    throw bad_input(fmt::format("dropout is {}", probability), "a probability in [0, 1)", "choose one in that range");
}

at::Tensor Dropout::forward(const at::Tensor& input) const {
  if (!is_training() || probability_ == 0) return input;
  const double kept = 1 - probability_;
  const at::Tensor mask =
      at::empty_like(input).bernoulli_(kept, generator_for(DrawScope::next_key(), input.device())).div_(kept);
  return input * mask;
}

}  // namespace penstock
