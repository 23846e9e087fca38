/// \file
/// FNV-1a: a short, fast hash that is the same on every machine. It does not protect against deliberate collisions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

/// The hash of no bytes.
inline constexpr std::uint64_t empty_hash = 0xcbf29ce484222325ULL;

/// The hash of the bytes that `before` is the hash of and `size` more. \param bytes may be null if `size` is 0.
[[nodiscard]] std::uint64_t hash_of(const void* bytes, std::size_t size, std::uint64_t before = empty_hash);

}  // namespace penstock
