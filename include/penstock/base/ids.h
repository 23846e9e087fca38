/// \file
/// Numbers of stages, ranks and microbatches. Each kind is a type of its own, so that a rank cannot be passed where a
/// stage is meant.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace penstock {

/// A number that counts one kind of thing from 0. `Tag` makes the kinds different types.
template <class Tag>
struct Id {
  std::int32_t value = 0;

  friend auto operator<=>(const Id&, const Id&) = default;

  /// The position in a container that has one element for each id.
  [[nodiscard]] constexpr std::size_t index() const { return static_cast<std::size_t>(value); }
};

/// A contiguous run of layers that lives on one device, numbered from the network's input.
using StageId = Id<struct StageTag>;
/// One executor: a device with a thread or a process.
using RankId = Id<struct RankTag>;
/// One of the slices of a minibatch, in the order in which gradients accumulate.
using MicrobatchId = Id<struct MicrobatchTag>;

}  // namespace penstock

template <class Tag>
struct std::hash<penstock::Id<Tag>> {
  std::size_t operator()(penstock::Id<Tag> id) const noexcept { return std::hash<std::int32_t>{}(id.value); }
};
