#include "data/split.h"

#include <algorithm>
#include <cmath>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::int64_t million = 1'000'000;

/// The share in millionths, so that the cut does not hang on the rounding of a product of floating-point numbers.
std::int64_t millionths(double held_out) {
  if (held_out == 0) return 0;
  return std::clamp<std::int64_t>(std::llround(held_out * static_cast<double>(million)), 1, million - 1);
}

/// Cuts 0 … size − 1 into blocks (the last takes what is left over) and gives block b to the held-out part where the
/// share's sum over the blocks passes a whole number: the last of every k, and never the first.
Split split_blocks(std::int64_t size, std::int64_t block, std::int64_t share) {
  Split split;
  const std::int64_t blocks = size / block;
  check_invariant(blocks >= (share == 0 ? 1 : 2), "both splits have room");
  const auto add = [](std::vector<Range>& ranges, Range range) {
    if (!ranges.empty() && ranges.back().end == range.begin)
      ranges.back().end = range.end;
    else
      ranges.push_back(range);
  };
  std::int64_t sum = 0;
  for (std::int64_t index = 0; index < blocks; ++index) {
    const bool last = index + 1 == blocks;
    sum += share;
    const bool held = sum >= million || (last && share > 0 && split.held_out.empty());
    if (sum >= million) sum -= million;
    add(held ? split.held_out : split.train, {.begin = index * block, .end = last ? size : (index + 1) * block});
  }
  return split;
}

}  // namespace

Split split_windows(std::int64_t size, std::int64_t window, double held_out) {
  const std::int64_t share = millionths(held_out);
  if (share == 0) return {.train = {Range{.begin = 0, .end = size}}, .held_out = {}};
  // Fewer blocks than 1 in `period` would hold out too much; fewer than four windows a block would waste many starts.
  const std::int64_t period = (million + share - 1) / share;
  const std::int64_t wanted = std::max(held_out_block, 4 * window);
  return split_blocks(size, std::max(window, std::min(wanted, size / period)), share);
}

Split split_samples(std::int64_t size, double held_out) {
  const std::int64_t share = millionths(held_out);
  if (share == 0) return {.train = {Range{.begin = 0, .end = size}}, .held_out = {}};
  return split_blocks(size, 1, share);
}

}  // namespace penstock
