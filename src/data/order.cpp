#include "penstock/data/order.h"

#include <algorithm>
#include <optional>

#include "penstock/base/error.h"
#include "penstock/base/random.h"

namespace penstock {
namespace {

/// "order" in ASCII: keeps these draws apart from those that other rooms key by (seed, number).
constexpr std::uint64_t purpose = 0x6f72646572;

}  // namespace

std::vector<std::int64_t> samples_of_step(std::int64_t size, std::int64_t step, std::int64_t batch,
                                          std::uint64_t seed) {
  check_invariant(size >= 1 && step >= 0 && batch >= 1, "a step draws at least one sample from at least one");
  std::vector<std::int64_t> samples;
  samples.reserve(static_cast<std::size_t>(batch));
  const auto epoch_size = static_cast<std::uint64_t>(size);
  std::uint64_t position = static_cast<std::uint64_t>(step) * static_cast<std::uint64_t>(batch);
  std::optional<Permutation> order;
  for (std::int64_t index = 0; index < batch; ++index, ++position) {
    const std::uint64_t within = position % epoch_size;
    if (!order || within == 0) order.emplace(epoch_size, mix_key({purpose, seed, position / epoch_size}));
    samples.push_back(static_cast<std::int64_t>((*order)(within)));
  }
  return samples;
}

std::vector<std::int64_t> evenly_spaced_samples(std::int64_t size, std::int64_t count) {
  check_invariant(size >= 1 && count >= 1, "an evaluation draws at least one sample from at least one");
  const std::int64_t drawn = std::min(size, count);
  std::vector<std::int64_t> samples;
  samples.reserve(static_cast<std::size_t>(drawn));
  // The middle of each of `drawn` equal parts, without a product that could overflow.
  for (std::int64_t index = 0; index < drawn; ++index)
    samples.push_back(size / drawn * index + size % drawn * index / drawn + size / drawn / 2);
  return samples;
}

}  // namespace penstock
