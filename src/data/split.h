/// \file
/// Which part of the data is held out: spread evenly over all of it, decided by sizes alone.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

namespace penstock {

/// The places from `begin` up to, not including, `end`.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  friend auto operator<=>(const Range&, const Range&) = default;
};

/// Ascending ranges that neither overlap nor touch.
struct Split {
  std::vector<Range> train;
  std::vector<Range> held_out;

  friend bool operator==(const Split&, const Split&) = default;
};

/// The size of the blocks that are held out whole, where there is enough data: 16,384 tokens (16 KiB of text).
inline constexpr std::int64_t held_out_block = 16'384;

/// Cuts a row of `size` tokens into blocks and holds out every k-th, where 1 in k is the share `held_out`. Blocks are
/// `held_out_block` long; longer for a long window, shorter for little data, but never shorter than `window`, so each
/// range has room for one.
/// \param size at least `window`, and twice that where `held_out` is above 0. \param held_out from 0 up to below 1;
///   rounded to a millionth. With 0 all of it is for training.
[[nodiscard]] Split split_windows(std::int64_t size, std::int64_t window, double held_out);

/// The same for `size` single samples: every k-th is held out, and at least one of each where `held_out` is above 0.
/// \param size at least 1, and 2 where `held_out` is above 0.
[[nodiscard]] Split split_samples(std::int64_t size, double held_out);

}  // namespace penstock
