#include "penstock/data/bigram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "penstock/base/error.h"

#include "data/windows.h"

namespace penstock {
namespace {

constexpr std::size_t byte_values = 256;
constexpr std::int64_t mebibyte = std::int64_t{1} << 20U;
constexpr std::int64_t most_training_bytes = 256 * mebibyte;
constexpr std::int64_t most_held_out_bytes = 64 * mebibyte;

/// How often byte b follows byte a within the ranges of a split: [a × 256 + b].
using PairCounts = std::vector<std::int64_t>;

/// Long ranges are counted block by block; where the split is larger than `most`, blocks are left out evenly.
PairCounts count_pairs(const WindowDataset& dataset, std::int64_t most) {
  std::int64_t total = 0;
  for (const Range& range : dataset.ranges()) total += range.end - range.begin;
  PairCounts counts(byte_values * byte_values, 0);
  std::int64_t passed = 0;
  std::int64_t taken = 0;
  for (const Range& range : dataset.ranges()) {
    for (std::int64_t begin = range.begin; begin < range.end; begin += held_out_block) {
      // One byte over the block's end, so that the pair across it counts too.
      const std::int64_t end = std::min(begin + held_out_block + 1, range.end);
      passed += std::min(held_out_block, range.end - begin);
      const double share = std::min(1.0, static_cast<double>(most) / static_cast<double>(total));
      if (static_cast<double>(taken) >= share * static_cast<double>(passed)) continue;
      taken += std::min(held_out_block, range.end - begin);
      std::size_t before = byte_values;
      dataset.tokens().visit(static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(end),
                             [&](std::span<const std::byte> piece) {
                               for (const std::byte byte : piece) {
                                 const auto next = std::to_integer<std::size_t>(byte);
                                 if (before != byte_values) ++counts[before * byte_values + next];
                                 before = next;
                               }
                             });
    }
  }
  return counts;
}

/// The mean of −ln p over the pairs of `held_out`.
double loss_with(double alpha, const PairCounts& train, const PairCounts& held_out) {
  double sum = 0;
  std::int64_t pairs = 0;
  for (std::size_t before = 0; before < byte_values; ++before) {
    std::int64_t row = 0;
    for (std::size_t next = 0; next < byte_values; ++next) row += train[before * byte_values + next];
    const double all = std::log(static_cast<double>(row) + alpha * static_cast<double>(byte_values));
    for (std::size_t next = 0; next < byte_values; ++next) {
      const std::int64_t count = held_out[before * byte_values + next];
      if (count == 0) continue;
      pairs += count;
      sum += static_cast<double>(count) *
             (all - std::log(static_cast<double>(train[before * byte_values + next]) + alpha));
    }
  }
  return sum / static_cast<double>(pairs);
}

}  // namespace

double bigram_loss(const Data& data) {
  const auto* train = dynamic_cast<const WindowDataset*>(data.train.get());
  const auto* held_out = dynamic_cast<const WindowDataset*>(data.held_out.get());
  if (data.description.kind != DataKind::Text || train == nullptr || held_out == nullptr)
    throw bad_input("a bigram model of data that is no text or has no held-out split", "text with a held-out split",
                    "open the data as text and hold out a share above 0");
  const PairCounts train_pairs = count_pairs(*train, most_training_bytes);
  const PairCounts held_out_pairs = count_pairs(*held_out, most_held_out_bytes);
  double best = std::numeric_limits<double>::infinity();
  // Eight smoothings for each power of ten: between neighbours the loss differs in the fourth place at most.
  for (int eighth = -48; eighth <= 16; ++eighth)
    best = std::min(best, loss_with(std::pow(10.0, eighth / 8.0), train_pairs, held_out_pairs));
  return best;
}

}  // namespace penstock
