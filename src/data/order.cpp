#include "penstock/data/order.h"

#include <algorithm>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/random.h"

namespace penstock {
namespace {

/// "order" in ASCII: keeps these draws apart from those that other rooms key by (seed, number).
constexpr std::uint64_t purpose = 0x6f72646572;

}  // namespace

SampleOrder::SampleOrder(std::vector<SourceShare> sources, std::uint64_t seed)
    : sources_(std::move(sources)), seed_(seed), taken_(sources_.size(), 0), epochs_(sources_.size()) {
  check_invariant(!sources_.empty(), "samples come from at least one source");
  for (const SourceShare& source : sources_) {
    check_invariant(source.size >= 1 && source.weight >= 1, "each source has a sample and a weight");
    period_ += source.weight;
  }
  check_invariant(period_ <= std::int64_t{1} << 31, "the products of weights fit into 64 bits");
}

// Among the sources whose share of a sequence with one sample more is above what they have had, the one whose next
// sample is due first.
std::size_t SampleOrder::next_source() {
  const std::int64_t within = position_ % period_;
  const std::int64_t periods = position_ / period_;
  const auto had = [&](std::size_t source) { return taken_[source] - periods * sources_[source].weight; };
  std::optional<std::size_t> first;
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    if (had(source) * period_ >= sources_[source].weight * (within + 1)) continue;
    if (!first || (had(source) + 1) * sources_[*first].weight < (had(*first) + 1) * sources_[source].weight)
      first = source;
  }
  check_invariant(first.has_value(), "one source is below its share");
  ++taken_[*first];
  ++position_;
  return *first;
}

void SampleOrder::go_to(std::int64_t position) {
  if (position < position_ || position - position_ >= period_) {
    position_ = position / period_ * period_;
    for (std::size_t source = 0; source < sources_.size(); ++source)
      taken_[source] = position / period_ * sources_[source].weight;
  }
  while (position_ < position) next_source();
}

// The one that the source has given last.
std::int64_t SampleOrder::sample_of(std::size_t source) {
  const auto size = static_cast<std::uint64_t>(sources_[source].size);
  const auto place = static_cast<std::uint64_t>(taken_[source] - 1);
  std::optional<Epoch>& epoch = epochs_[source];
  if (!epoch || epoch->first != place / size) {
    // The first source has the key of one that is alone.
    const std::uint64_t key = source == 0 ? mix_key({purpose, seed_, place / size})
                                          : mix_key({purpose, seed_, place / size, std::uint64_t{source}});
    epoch.emplace(place / size, Permutation(size, key));
  }
  return static_cast<std::int64_t>(epoch->second(place % size));
}

std::vector<std::int64_t> SampleOrder::of_step(std::int64_t step, std::int64_t batch) {
  check_invariant(step >= 0 && batch >= 1, "a step draws at least one sample");
  std::vector<std::int64_t> first_of(sources_.size(), 0);
  for (std::size_t source = 1; source < sources_.size(); ++source)
    first_of[source] = first_of[source - 1] + sources_[source - 1].size;
  go_to(step * batch);
  std::vector<std::int64_t> samples;
  samples.reserve(static_cast<std::size_t>(batch));
  for (std::int64_t index = 0; index < batch; ++index) {
    const std::size_t source = next_source();
    samples.push_back(first_of[source] + sample_of(source));
  }
  return samples;
}

std::vector<std::int64_t> samples_of_step(std::int64_t size, std::int64_t step, std::int64_t batch,
                                          std::uint64_t seed) {
  check_invariant(size >= 1, "a step draws from at least one sample");
  return SampleOrder({{size}}, seed).of_step(step, batch);
}

std::vector<std::int64_t> counts_of_first(const std::vector<SourceShare>& sources, std::int64_t count) {
  check_invariant(count >= 0, "a sequence has a beginning");
  SampleOrder order(sources, /*seed=*/0);
  order.go_to(count);
  return order.taken_;
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

std::vector<std::int64_t> evenly_spaced_samples(const std::vector<SourceShare>& sources, std::int64_t count) {
  const std::vector<std::int64_t> counts = counts_of_first(sources, count);
  std::vector<std::int64_t> samples;
  std::int64_t first = 0;
  for (std::size_t source = 0; source < sources.size(); ++source) {
    if (counts[source] > 0)
      for (const std::int64_t sample : evenly_spaced_samples(sources[source].size, counts[source]))
        samples.push_back(first + sample);
    first += sources[source].size;
  }
  return samples;
}

}  // namespace penstock
