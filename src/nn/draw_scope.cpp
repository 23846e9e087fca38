#include <algorithm>
#include <fmt/format.h>
#include <limits>
#include <mutex>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include "penstock/base/error.h"
#include "penstock/base/random.h"
#include "penstock/nn/dropout.h"

#include "nn/generators.h"

namespace penstock {
namespace {

thread_local DrawScope* innermost_draws = nullptr;

// Beside the numbers of `next_key`, which count up from 0.
constexpr std::uint64_t draw_of_generator = std::numeric_limits<std::uint64_t>::max();

}  // namespace

at::Generator generator_from(std::uint64_t key, at::Device device) {
  if (device.is_cpu()) return at::detail::createCPUGenerator(key);
  at::Generator shared = at::globalContext().defaultGenerator(device);
  at::Generator generator = [&] {
    const std::scoped_lock lock(shared.mutex());
    return shared.clone();
  }();
  generator.set_current_seed(key);
  return generator;
}

DrawScope::DrawScope() : outer_(std::exchange(innermost_draws, this)), seen_(c10::DispatchKeySet(draw_key)) {}

DrawScope::DrawScope(const DrawPlace& place) : DrawScope() { place_ = place; }

DrawScope::~DrawScope() { innermost_draws = outer_; }

DrawScope& DrawScope::innermost(std::string_view operation) {
  if (innermost_draws == nullptr)
    throw run_failed(fmt::format("{} draws random numbers on a thread without a DrawScope", operation),
                     "draws within a pipeline, on the thread that computes the layer",
                     "open a DrawScope that names seed, step, microbatch and layer");
  if (!innermost_draws->place_)
    throw bad_input(fmt::format("{} draws random numbers in a backward pass", operation),
                    "draws in the forward pass, which are the same under any cut and schedule",
                    "draw in the forward pass and keep what was drawn for the backward");
  return *innermost_draws;
}

std::uint64_t DrawScope::key_of(std::uint64_t draw) const {
  return mix_key({place_->seed, static_cast<std::uint64_t>(place_->step),
                  static_cast<std::uint64_t>(place_->microbatch), static_cast<std::uint64_t>(place_->layer), draw});
}

std::uint64_t DrawScope::next_key() {
  DrawScope& scope = innermost("a random layer");
  return scope.key_of(scope.draws_++);
}

bool DrawScope::owns(const at::Generator& generator) {
  return innermost_draws != nullptr &&
         std::ranges::find(innermost_draws->generators_, generator) != innermost_draws->generators_.end();
}

const at::Generator& DrawScope::generator(at::Device device, std::string_view operation) {
  DrawScope& scope = innermost(operation);
  auto& known = scope.generators_;
  const auto found = std::find_if(known.begin(), known.end(), [&](const auto& one) { return one.device() == device; });
  if (found != known.end()) return *found;
  return known.emplace_back(generator_from(scope.key_of(draw_of_generator), device));
}

}  // namespace penstock
