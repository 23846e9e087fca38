/// \file
/// Random numbers that depend on where they are used and on nothing else: not on the order of calls, not on the thread,
/// not on how the network is cut. Every draw starts from a key that names its place: (seed, step, microbatch, layer,
/// …).
#pragma once

#include <cstdint>
#include <initializer_list>

namespace penstock {

/// One key out of several: equal for equal parts in equal order, and as good as unrelated otherwise.
/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014) over each part in turn.
[[nodiscard]] std::uint64_t mix_key(std::initializer_list<std::uint64_t> parts);

/// A permutation of 0 … `size` − 1 that is computed place by place and never stored: a keyed Feistel network over the
/// next power of four, walked until the value falls within `size`.
class Permutation {
 public:
  /// \param size number of elements, at least 1.
  Permutation(std::uint64_t size, std::uint64_t key);

  /// The element at `position` (below `size`). Constant time on average, thread-safe.
  [[nodiscard]] std::uint64_t operator()(std::uint64_t position) const;

 private:
  std::uint64_t size_;
  std::uint64_t key_;
  unsigned half_bits_;
};

}  // namespace penstock
