#include "penstock/transport/layout.h"

#include <fmt/format.h>
#include <string>

#include <ATen/ATen.h>
#include <c10/util/StringUtil.h>

#include "penstock/base/error.h"

#include "transport/strided_tensor.h"

namespace penstock {
namespace {

// What hinders it from being plain strided memory; empty where nothing does.
std::string unusual(const at::Tensor& tensor) {
  if (tensor.is_nested()) return "a nested tensor";
  if (tensor.layout() != at::kStrided) return fmt::format("a tensor of the layout {}", c10::str(tensor.layout()));
  if (tensor.is_quantized()) return fmt::format("a quantised tensor, of {}", c10::toString(tensor.scalar_type()));
  if (tensor.is_meta()) return "a tensor on the device \"meta\", which holds no values";
  if (!tensor.has_storage()) return "a tensor without storage";
  if (static_cast<std::size_t>(tensor.dim()) > most_dimensions)
    return fmt::format("a tensor of {} dimensions", tensor.dim());
  return {};
}

}  // namespace

void check_is_plain_memory(const at::Tensor& tensor) {
  if (!tensor.defined()) return;
  if (const std::string what = unusual(tensor); !what.empty())
    throw bad_input(what + " between two stages",
                    fmt::format("dense, strided tensors of at most {} dimensions", most_dimensions),
                    "let the layer that returns it return dense ones, as with to_dense(), dequantize() or reshape()");
}

Bytes bytes_of(const at::Tensor& tensor) {
  return tensor.defined() && tensor.has_storage() ? Bytes{static_cast<std::int64_t>(tensor.nbytes())} : Bytes{};
}

Bytes bytes_of(const std::vector<at::Tensor>& tensors) {
  Bytes total;
  for (const at::Tensor& tensor : tensors) total += bytes_of(tensor);
  return total;
}

void check_is_contiguous(const at::Tensor& tensor, at::ScalarType dtype) {
  if (tensor.defined() && tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.scalar_type() == dtype &&
      tensor.is_contiguous())
    return;
  throw run_failed("numbers in an unknown layout from another rank",
                   fmt::format("a contiguous tensor of {} on the host", c10::toString(dtype)),
                   "start every process of the run with the same penstock");
}

Extent extent_of(const at::Tensor& tensor) {
  const auto extent = extent_of(std::span(tensor.sizes().data(), tensor.sizes().size()),
                                std::span(tensor.strides().data(), tensor.strides().size()));
  check_invariant(extent.has_value(), "a tensor's memory has fewer than 2^63 elements");
  return *extent;
}

at::Tensor without_repeats(const at::Tensor& tensor) {
  std::vector<std::int64_t> sizes = tensor.sizes().vec();
  bool any = false;
  for (std::size_t dimension = 0; dimension < sizes.size(); ++dimension) {
    if (tensor.strides()[dimension] != 0 || sizes[dimension] <= 1) continue;
    sizes[dimension] = 1;
    any = true;
  }
  return any ? tensor.as_strided(sizes, tensor.strides(), tensor.storage_offset()) : tensor;
}

at::Tensor as_layout(const at::Tensor& memory, at::IntArrayRef sizes, at::IntArrayRef strides) {
  if (memory.sizes() == sizes && memory.strides() == strides) return memory;
  // Detached once more: no view of something else, so that a layer may change it as it may any tensor.
  return memory.as_strided(sizes, strides, memory.storage_offset()).detach();
}

at::Tensor copy_in_same_layout(const at::Tensor& tensor, at::Device device) {
  if (!tensor.defined()) return {};
  check_is_plain_memory(tensor);
  const at::Tensor source = without_repeats(tensor.detach());
  const at::Tensor copy = at::empty_strided(source.sizes(), source.strides(), tensor.options().device(device));
  copy.copy_(source);
  return as_layout(copy, tensor.sizes(), tensor.strides());
}

}  // namespace penstock
