#include "profile/layer_measurement.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <unistd.h>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/quantile.h"
#include "penstock/transport/layout.h"

namespace penstock {
namespace {

Tensors copies_of(const Tensors& tensors) {
  Tensors copies;
  copies.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) {
      copies.emplace_back();
      continue;
    }
    copies.push_back(tensor.detach().clone());
    if (tensor.requires_grad()) copies.back().requires_grad_();
  }
  return copies;
}

// What `tensors` hold that none of `others` does.
Bytes size_beside(const Tensors& tensors, const Tensors& others) {
  std::set<const void*> seen;
  for (const at::Tensor& other : others)
    if (other.defined()) seen.insert(other.storage().data());
  Bytes total;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined() && seen.insert(tensor.storage().data()).second)
      total += Bytes{static_cast<std::int64_t>(tensor.storage().nbytes())};
  return total;
}

Bytes not_below_0(Bytes bytes) { return {std::max<std::int64_t>(bytes.count, 0)}; }

void raise(Bytes& most, Bytes bytes) { most = std::max(most, bytes); }

}  // namespace

Bytes held(const Instruments& instruments) {
  const auto on_device = device_memory(instruments.lane.device());
  return on_device ? on_device->held : instruments.memory.held();
}

Bytes peak(const Instruments& instruments) {
  const auto on_device = device_memory(instruments.lane.device());
  return on_device ? on_device->peak : instruments.memory.peak();
}

void reset_peak(const Instruments& instruments) {
  instruments.memory.reset_peak();
  reset_device_peak(instruments.lane.device());
}

void Between::set_bytes(std::int64_t bytes) {
  constexpr std::int64_t usual = 32 << 20;
  const std::int64_t largest_cache = std::max<std::int64_t>(::sysconf(_SC_LEVEL3_CACHE_SIZE), 0);
  const std::int64_t most = 2 * (largest_cache > 0 ? largest_cache : usual);
  if (!on_host_) return;
  read_ = static_cast<std::size_t>(std::clamp<std::int64_t>(bytes, 0, most)) / sizeof(std::int64_t);
  if (memory_.size() < read_) memory_.resize(read_, 1);
}

void Between::pass(const Tensors& next) const {
  // Without a use of the sum the compiler would leave the loop out.
  volatile std::int64_t read = 0;
  read = std::accumulate(memory_.begin(), memory_.begin() + static_cast<std::ptrdiff_t>(read_), std::int64_t{0});
  static_cast<void>(read);
  const at::NoGradGuard no_graph;
  for (const at::Tensor& tensor : next)
    if (tensor.defined()) static_cast<void>(tensor.sum());
}

double LayerMeasurement::timed(const Tensors& next, const std::function<void()>& pass) {
  if (between_ != nullptr) between_->pass(next);
  reset_peak(instruments_);
  const Milliseconds start = instruments_.clock.now();
  pass();
  instruments_.lane.wait();
  return (instruments_.clock.now() - start).count;
}

Tensors LayerMeasurement::forward(LayerSamples& samples) {
  stage_.begin({});
  base_ = held(instruments_);
  Tensors inputs = input_.counts ? copies_of(input_.boundary) : input_.boundary;
  Tensors outputs;
  samples.forward.push_back(timed(inputs, [&] { outputs = stage_.forward({0}, std::move(inputs), input_.targets); }));
  const Bytes most = peak(instruments_);
  // Nobody takes the outputs behind the loss.
  if (stage_.has_loss()) outputs.clear();
  const Bytes size = bytes_of(outputs);
  const Bytes with_outputs = held(instruments_);
  Tensors gradients;
  // Without storage of its own: the outputs' is freed, as when they have been sent.
  outputs_ = copies_of(outputs);
  const Bytes copied = held(instruments_) - with_outputs;
  outputs.clear();
  const Bytes kept = held(instruments_) - copied - base_;
  samples.sizes.boundary = size;
  samples.sizes.kept_output = not_below_0(size - (with_outputs - base_ - kept));
  samples.sizes.activation = not_below_0(kept - samples.sizes.kept_output);
  raise(samples.sizes.forward_workspace, most - base_ - samples.sizes.activation);
  gradients.reserve(outputs_.size());
  for (const at::Tensor& output : outputs_)
    gradients.push_back(output.defined() && output.requires_grad() ? at::randn_like(output).detach() : at::Tensor());
  if (stage_.has_loss()) gradients.clear();
  base_ = base_ + copied;
  return gradients;
}

void LayerMeasurement::whole_backward(LayerSamples& samples, Tensors gradients) {
  const Bytes arrived = bytes_of(gradients);
  Tensors input_gradients;
  samples.backward.push_back(timed(gradients, [&] { input_gradients = stage_.backward({0}, std::move(gradients)); }));
  raise(samples.sizes.backward_workspace, peak(instruments_) - base_ - samples.sizes.activation - arrived);
}

void LayerMeasurement::split_backward(LayerSamples& samples, Tensors gradients) {
  const Bytes size = bytes_of(gradients);
  Tensors arrived = gradients;
  Tensors input_gradients;
  samples.input_backward.push_back(
      timed(gradients, [&] { input_gradients = stage_.input_backward({0}, std::move(gradients)); }));
  raise(samples.sizes.input_workspace, peak(instruments_) - base_ - samples.sizes.activation - size);
  samples.sizes.deferred = size_beside(stage_.deferred_gradients({0}), arrived);
  arrived.clear();
  input_gradients.clear();
  samples.for_weights = not_below_0(held(instruments_) - base_);
  samples.weight_backward.push_back(timed({}, [&] { stage_.weight_backward({0}); }));
  raise(samples.sizes.weight_workspace, peak(instruments_) - base_ - samples.for_weights);
}

namespace {

constexpr std::array times_of_passes = {&LayerSamples::forward, &LayerSamples::backward, &LayerSamples::input_backward,
                                        &LayerSamples::weight_backward};

}  // namespace

void LayerSamples::append_mean(const LayerSamples& others) {
  for (const auto member : times_of_passes) (this->*member).push_back(mean(others.*member));
}

double LayerSamples::sum_of_times() const {
  double sum = 0;
  for (const auto member : times_of_passes) sum = std::accumulate((this->*member).begin(), (this->*member).end(), sum);
  return sum;
}

void LayerSamples::forget_times() {
  for (const auto member : times_of_passes) (this->*member).clear();
}

void LayerMeasurement::cycle(LayerSamples* samples) {
  LayerSamples warm_up;
  LayerSamples& into = samples != nullptr ? *samples : warm_up;
  whole_backward(into, forward(into));
  outputs_.clear();
  split_backward(into, forward(into));
}

}  // namespace penstock
