#include "transport/link/wire_tensor.h"

#include <cstddef>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>

#include "penstock/base/error.h"

#include "transport/link/wire_dtype.h"
#include "transport/strided_tensor.h"

namespace penstock {
namespace {

struct Uncounted final : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void* /*pointer*/, std::int64_t /*bytes*/, std::size_t /*allocated*/, std::size_t /*reserved*/,
                         c10::Device /*device*/) override {}
  [[nodiscard]] bool memoryProfilingEnabled() const override { return false; }
};

const std::shared_ptr<Uncounted>& uncounted() {
  static const auto only = std::make_shared<Uncounted>();
  return only;
}

// In memory that no rank's meter sees, on the host.
at::Tensor flat_memory(std::int64_t elements, at::ScalarType dtype) {
  // Not a vector, which would clear it.
  using Memory = std::byte[];  // NOLINT(modernize-avoid-c-arrays)
  const std::shared_ptr<Memory> memory =
      std::make_unique_for_overwrite<Memory>(static_cast<std::size_t>(elements) * c10::elementSize(dtype));
  return at::from_blob(memory.get(), {elements}, [memory](void*) {}, at::TensorOptions().dtype(dtype));
}

// What its memory holds is what it shows.
bool shows_its_memory(const at::Tensor& tensor) {
  return !tensor.is_conj() && !tensor.is_neg() && !tensor._is_zerotensor();
}

std::vector<std::int64_t> sizes_without_repeats(const TensorLayout& layout) {
  std::vector<std::int64_t> sizes = layout.sizes;
  for (std::size_t dimension = 0; dimension < sizes.size(); ++dimension)
    if (layout.strides[dimension] == 0 && sizes[dimension] > 1) sizes[dimension] = 1;
  return sizes;
}

Extent extent_of_layout(const TensorLayout& layout) {
  const auto extent = extent_of(layout.sizes, layout.strides);
  check_invariant(extent.has_value(), "a layout that was read has fewer than 2^63 elements");
  return *extent;
}

}  // namespace

UncountedScope::UncountedScope() : guard_(c10::DebugInfoKind::PROFILER_STATE, uncounted()) {}

at::Tensor for_wire(const at::Tensor& tensor, const TensorLayout& layout, bool to_host) {
  if (!tensor.defined()) return {};
  const bool as_it_is = (tensor.is_cpu() || !to_host) && shows_its_memory(tensor);
  if (as_it_is && layout.strides.empty()) return tensor;
  if (tensor.numel() == 0) return {};
  at::Tensor source = without_repeats(tensor.detach());
  const Extent extent = extent_of(source);
  if (as_it_is && extent.spread == Spread::Dense) return source;
  const auto elements = static_cast<std::int64_t>(extent.distinct);
  const at::Tensor flat =
      to_host ? flat_memory(elements, source.scalar_type()) : at::empty({elements}, source.options());
  // What lies between elements that share memory goes with them, and must not be what happens to be there.
  if (extent.spread == Spread::Overlaps) flat.view(at::kByte).zero_();
  if (extent.spread == Spread::Gaps)
    flat.view(source.sizes()).copy_(source);
  else
    flat.as_strided(source.sizes(), source.strides()).copy_(source);
  return flat;
}

at::Tensor landing_for(const TensorLayout& layout, at::Device device) {
  const auto options = at::TensorOptions().dtype(scalar_type_of(layout.dtype)).device(device);
  if (layout.strides.empty()) return at::empty(layout.sizes, options);
  const std::vector<std::int64_t> sizes = sizes_without_repeats(layout);
  const Extent extent = extent_of_layout(layout);
  switch (extent.spread) {
    case Spread::Dense:
      return at::empty_strided(sizes, layout.strides, options);
    case Spread::Gaps:
      return at::empty(sizes, options);
    case Spread::Overlaps:
      break;
  }
  return at::empty({static_cast<std::int64_t>(extent.span)}, options);
}

at::Tensor room_with_gaps(const TensorLayout& layout, at::Device device) {
  if (layout.strides.empty() || extent_of_layout(layout).spread != Spread::Gaps) return {};
  return at::empty_strided(sizes_without_repeats(layout), layout.strides,
                           at::TensorOptions().dtype(scalar_type_of(layout.dtype)).device(device));
}

at::Tensor landed(const TensorLayout& layout, const at::Tensor& landing) {
  if (layout.strides.empty()) return landing;
  const at::Tensor room = room_with_gaps(layout, landing.device());
  if (!room.defined()) return as_layout(landing, layout.sizes, layout.strides);
  // Not libtorch's copy, which would start threads for the link's.
  scatter(static_cast<const std::byte*>(landing.const_data_ptr()), landing.element_size(), room.sizes(), room.strides(),
          static_cast<std::byte*>(room.data_ptr()));
  return as_layout(room, layout.sizes, layout.strides);
}

std::vector<at::Tensor> landings_for(const Layouts& layouts) {
  const UncountedScope uncounted;
  std::vector<at::Tensor> landings;
  landings.reserve(layouts.size());
  for (const TensorLayout& layout : layouts)
    landings.push_back(layout.dtype == WireDtype::Undefined || layout.on_device ? at::Tensor()
                                                                                : landing_for(layout, at::kCPU));
  return landings;
}

Layouts layouts_of(const std::vector<at::Tensor>& tensors, const std::optional<at::Device>& device) {
  if (tensors.size() > most_tensors)
    throw bad_input(fmt::format("a message of {} tensors between processes", tensors.size()),
                    fmt::format("at most {}", most_tensors), "stack some of them in the layer that returns them");
  Layouts layouts;
  layouts.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    layouts.push_back(layout_of(tensor));
    layouts.back().on_device = device && tensor.defined() && tensor.device() == *device && tensor.numel() > 0;
  }
  return layouts;
}

}  // namespace penstock
