#include "exec/flow.h"

#include <fmt/format.h>
#include <iterator>
#include <set>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

at::Tensor for_one_reader(const at::Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad() ? at::alias(tensor) : tensor;
}

}  // namespace

std::vector<SkippedTensor> carried_across(const std::vector<Skip>& skips, std::int64_t layer) {
  std::set<SkippedTensor> carried;
  for (const Skip& skip : skips)
    if (skip.from < layer - 1 && skip.to >= layer) carried.insert({skip.from, skip.output});
  return {carried.begin(), carried.end()};
}

Flow::Flow(const std::vector<Skip>& skips, std::int64_t first_layer, Tensors boundary)
    : skips_(skips), chain_(std::move(boundary)) {
  if (skips_.empty()) return;
  const std::vector<SkippedTensor> carried = carried_across(skips_, first_layer);
  check_invariant(chain_.size() >= carried.size(), "a boundary without its skips");
  const auto first_carried = chain_.end() - static_cast<std::ptrdiff_t>(carried.size());
  for (std::size_t index = 0; index < carried.size(); ++index)
    skipped_[carried[index]] = std::move(first_carried[static_cast<std::ptrdiff_t>(index)]);
  chain_.erase(first_carried, chain_.end());
  keep_skipped(first_layer - 1);
}

void Flow::keep_skipped(std::int64_t layer) {
  for (const Skip& skip : skips_) {
    if (skip.from != layer) continue;
    if (static_cast<std::size_t>(skip.output) >= chain_.size())
      throw run_failed(fmt::format("layer {} reads output {} of layer {}, which returned {} tensors", skip.to,
                                   skip.output, layer, chain_.size()),
                       "a skip of an output that is there", "correct Network::skips or return more tensors");
    skipped_[{layer, skip.output}] = chain_[static_cast<std::size_t>(skip.output)];
  }
}

Tensors Flow::inputs_of(std::int64_t layer) {
  Tensors inputs = std::exchange(chain_, {});
  if (skips_.empty()) return inputs;
  for (std::size_t output = 0; output < inputs.size(); ++output)
    if (skipped_.contains({layer - 1, static_cast<std::int64_t>(output)}))
      inputs[output] = for_one_reader(inputs[output]);
  for (const Skip& skip : skips_)
    if (skip.to == layer) inputs.push_back(for_one_reader(skipped_.at({skip.from, skip.output})));
  return inputs;
}

void Flow::put_outputs_of(std::int64_t layer, Tensors outputs) {
  chain_ = std::move(outputs);
  if (!skips_.empty()) keep_skipped(layer);
}

Tensors Flow::boundary(std::int64_t next_layer) && {
  Tensors boundary = std::move(chain_);
  for (const SkippedTensor& carried : carried_across(skips_, next_layer)) boundary.push_back(skipped_.at(carried));
  return boundary;
}

}  // namespace penstock
