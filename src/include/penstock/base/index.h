/// \file
/// Indexing and sizing of containers by ids and by counts, which are signed, so that no caller converts by hand.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "penstock/base/types.h"

namespace penstock {

/// The size of a container for so many elements. \param count at least 0.
template <std::integral Count>
[[nodiscard]] constexpr std::size_t as_size(Count count) {
  return static_cast<std::size_t>(count);
}

/// The position of the element for this number, counted from 0. \param key at least 0.
template <std::integral Key>
[[nodiscard]] constexpr std::size_t as_index(Key key) {
  return static_cast<std::size_t>(key);
}
/// The same for an enumerator.
template <class Enumeration>
  requires std::is_enum_v<Enumeration>
[[nodiscard]] constexpr std::size_t as_index(Enumeration key) {
  return static_cast<std::size_t>(key);
}
/// The same for an id.
template <class Tag>
[[nodiscard]] constexpr std::size_t as_index(Id<Tag> key) {
  return static_cast<std::size_t>(key.value);
}

/// The element that a list has for this id, number or enumerator. Not checked, as `operator[]` is not.
template <class List, class Key>
[[nodiscard]] constexpr decltype(auto) entry(List& list, Key key) {
  return list[as_index(key)];
}

}  // namespace penstock
