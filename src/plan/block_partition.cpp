#include "plan/block_partition.h"

#include <algorithm>
#include <numeric>

#include "penstock/base/index.h"

namespace penstock {

Cut block_partition_cut(const std::vector<double>& weights, int stages) {
  const double least = *std::min_element(weights.begin(), weights.end());
  const double range = *std::max_element(weights.begin(), weights.end()) - least;
  std::vector<double> scaled(weights.size(), 0);
  for (std::size_t layer = 0; range > 0 && layer < weights.size(); ++layer)
    scaled[layer] = (weights[layer] - least) / range;
  const auto blocks = as_size(stages);
  std::vector<std::size_t> ends(blocks, weights.size());
  for (std::size_t block = 0; block + 1 < blocks; ++block) ends[block] = weights.size() / blocks * (block + 1);
  const auto sums = [&] {
    std::vector<double> block_sums;
    block_sums.reserve(blocks);
    for (std::size_t block = 0; block < blocks; ++block)
      block_sums.push_back(
          std::accumulate(scaled.begin() + static_cast<std::ptrdiff_t>(block > 0 ? ends[block - 1] : 0),
                          scaled.begin() + static_cast<std::ptrdiff_t>(ends[block]), 0.0));
    return block_sums;
  };
  // The largest block gives to the smallest, through those between them, until they differ by one largest element. A
  // sum of equal numbers that rounds apart could go to and fro, hence the limit.
  std::size_t largest = blocks;
  double largest_sum = 0;
  for (std::size_t step = 0; step < weights.size() * weights.size() * blocks; ++step) {
    const std::vector<double> block_sums = sums();
    if (largest == blocks) {
      // The last of equal ones.
      largest = 0;
      for (std::size_t block = 1; block < blocks; ++block)
        if (block_sums[block] >= block_sums[largest]) largest = block;
      largest_sum = block_sums[largest];
    }
    const auto smallest = as_size(std::min_element(block_sums.begin(), block_sums.end()) - block_sums.begin());
    if (largest_sum <= block_sums[smallest] + 1) break;
    const bool from_left = largest < smallest;
    const std::size_t giver = from_left ? smallest - 1 : smallest + 1;
    // If weights differ by rounding alone, the largest block may be one that has nothing left to give.
    if (ends[giver] - (giver > 0 ? ends[giver - 1] : 0) <= 1) break;
    if (from_left)
      --ends[giver];
    else
      ++ends[smallest];
    if (giver == largest) largest = blocks;
  }
  Cut cut{0};
  for (std::size_t block = 0; block + 1 < blocks; ++block) cut.push_back(static_cast<std::int64_t>(ends[block]));
  return cut;
}

}  // namespace penstock
