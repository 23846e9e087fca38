#include "penstock/wire/strided.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace penstock {

std::optional<Extent> extent_of(std::span<const std::int64_t> sizes, std::span<const std::int64_t> strides,
                                std::uint64_t most) {
  if (std::ranges::find(sizes, 0) != sizes.end()) return Extent{};
  if (most == 0 || sizes.size() > most_dimensions) return std::nullopt;
  std::array<std::pair<std::uint64_t, std::uint64_t>, most_dimensions> by_stride;  // strides and sizes
  std::size_t count = 0;
  for (std::size_t dimension = 0; dimension < sizes.size(); ++dimension)
    if (sizes[dimension] > 1 && strides[dimension] > 0)
      by_stride[count++] = {static_cast<std::uint64_t>(strides[dimension]),
                            static_cast<std::uint64_t>(sizes[dimension])};
  std::sort(by_stride.begin(), by_stride.begin() + static_cast<std::ptrdiff_t>(count));
  Extent extent{Spread::Dense, 1, 1};
  for (const auto& [stride, size] : std::span(by_stride).first(count)) {
    // A step that is no shorter than all that lies within it cannot meet what it has left.
    if (stride < extent.span) extent.spread = Spread::Overlaps;
    if (size - 1 > (most - extent.span) / stride) return std::nullopt;
    extent.span += (size - 1) * stride;
    // Without overlaps there are no more elements than places; with them the number is not used.
    if (extent.spread != Spread::Overlaps) extent.distinct *= size;
  }
  if (extent.spread == Spread::Overlaps)
    extent.distinct = extent.span;
  else if (extent.distinct < extent.span)
    extent.spread = Spread::Gaps;
  return extent;
}

bool are_default_strides(std::span<const std::int64_t> sizes, std::span<const std::int64_t> strides) {
  std::int64_t expected = 1;
  for (std::size_t dimension = sizes.size(); dimension-- > 0;) {
    if (strides[dimension] != expected) return false;
    expected *= std::max<std::int64_t>(sizes[dimension], 1);
  }
  return true;
}

const std::byte* scatter(const std::byte* elements, std::size_t element_bytes, std::span<const std::int64_t> sizes,
                         std::span<const std::int64_t> strides, std::byte* into) {
  if (sizes.empty() || (sizes.size() == 1 && strides[0] == 1)) {
    const std::size_t bytes = element_bytes * (sizes.empty() ? 1 : static_cast<std::size_t>(sizes[0]));
    std::memcpy(into, elements, bytes);
    return elements + bytes;
  }
  const std::int64_t step = strides[0] * static_cast<std::int64_t>(element_bytes);
  for (std::int64_t index = 0; index < sizes[0]; ++index)
    elements = scatter(elements, element_bytes, sizes.subspan(1), strides.subspan(1), into + index * step);
  return elements;
}

}  // namespace penstock
