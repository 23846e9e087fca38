/// \file
/// How the elements of a tensor lie in memory, from its sizes and strides. Knows nothing of libtorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace penstock {

/// libtorch's own operations take no more.
inline constexpr std::size_t most_dimensions = 64;

/// How a tensor's elements share the memory that they span.
enum class Spread : std::uint8_t {
  Dense,    ///< the elements fill their memory, each place is one element's
  Gaps,     ///< each place is one element's or nobody's
  Overlaps  ///< two elements may share a place, other than by a stride of 0
};

/// A dimension of stride 0 counts as one of size 1: all along it is the same.
struct Extent {
  Spread spread = Spread::Dense;
  std::uint64_t distinct = 0;  ///< elements; those of the span where they may overlap
  std::uint64_t span = 0;      ///< from the first element to the last, counted in elements
};

/// \param sizes as many as `strides`, none below 0. None where they are more than `most_dimensions`, or the span is
/// above `most`.
[[nodiscard]] std::optional<Extent> extent_of(std::span<const std::int64_t> sizes,
                                              std::span<const std::int64_t> strides,
                                              std::uint64_t most = std::numeric_limits<std::int64_t>::max());

/// Whether `strides` are exactly those that libtorch gives a new tensor of `sizes`.
[[nodiscard]] bool are_default_strides(std::span<const std::int64_t> sizes, std::span<const std::int64_t> strides);

/// Puts elements of `element_bytes` each, that lie one behind the other in the order of the dimensions, to where
/// `strides` say. Returns the end of what was taken. \pre `into` has room for the span
const std::byte* scatter(const std::byte* elements, std::size_t element_bytes, std::span<const std::int64_t> sizes,
                         std::span<const std::int64_t> strides, std::byte* into);

}  // namespace penstock
