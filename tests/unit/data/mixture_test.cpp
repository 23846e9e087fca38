// Samples from several sources: each has its share of every beginning, and a sequence goes on from any place.
#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/data/dataset.h"
#include "penstock/data/order.h"

namespace penstock::mixture_test {
namespace {

std::size_t source_of(const std::vector<SourceShare>& sources, std::int64_t sample) {
  std::size_t source = 0;
  while (sample >= sources[source].size) sample -= sources[source++].size;
  return source;
}

std::vector<SourceShare> drawn_sources(std::mt19937_64& random) {
  std::vector<SourceShare> sources(1 + random() % 6);
  for (SourceShare& source : sources) {
    source.size = static_cast<std::int64_t>(1 + random() % 40);
    source.weight = static_cast<std::int64_t>(1 + random() % (random() % 2 == 0 ? 5 : 100'000));
  }
  return sources;
}

TEST(SampleOrder, EachSourceHasItsShareOfEveryBeginning) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 random(seed);
    const std::vector<SourceShare> sources = drawn_sources(random);
    std::int64_t weights = 0;
    for (const SourceShare& source : sources) weights += source.weight;
    SampleOrder order(sources, seed);
    std::vector<std::int64_t> counts(sources.size(), 0);
    std::int64_t length = 0;
    for (std::int64_t step = 0; step < 60; ++step)
      for (const std::int64_t sample : order.of_step(step, 7)) {
        ++counts[source_of(sources, sample)];
        ++length;
        for (std::size_t source = 0; source < sources.size(); ++source)
          ASSERT_LT(std::abs(static_cast<double>(counts[source] * weights - sources[source].weight * length)),
                    static_cast<double>(weights))
              << "seed " << seed << ", source " << source << " after " << length;
      }
    EXPECT_EQ(counts, counts_of_first(sources, length)) << "seed " << seed;
  }
}

TEST(SampleOrder, EverySourceHasEpochsOfItsOwn) {
  const std::vector<SourceShare> sources{{5, 3}, {11, 1}};
  SampleOrder order(sources, 9);
  std::vector<std::vector<std::int64_t>> of_source(2);
  for (const std::int64_t sample : order.of_step(0, 220)) of_source[sample < 5 ? 0 : 1].push_back(sample);
  ASSERT_EQ(of_source[0].size(), 165U);
  for (std::size_t source = 0; source < 2; ++source) {
    const auto size = static_cast<std::size_t>(sources[source].size);
    std::set<std::vector<std::int64_t>> epochs;
    for (std::size_t first = 0; first + size <= of_source[source].size(); first += size) {
      std::vector<std::int64_t> epoch(of_source[source].begin() + static_cast<std::ptrdiff_t>(first),
                                      of_source[source].begin() + static_cast<std::ptrdiff_t>(first + size));
      epochs.insert(epoch);
      std::ranges::sort(epoch);
      std::vector<std::int64_t> all(size);
      std::iota(all.begin(), all.end(), source == 0 ? 0 : 5);
      EXPECT_EQ(epoch, all);
    }
    EXPECT_GT(epochs.size(), 3U) << "each has an order of its own";
  }
}

TEST(SampleOrder, GoesOnFromAnyStep) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    std::mt19937_64 random(seed);
    const std::vector<SourceShare> sources = drawn_sources(random);
    SampleOrder whole(sources, seed);
    std::vector<std::vector<std::int64_t>> steps;
    steps.reserve(40);
    for (std::int64_t step = 0; step < 40; ++step) steps.push_back(whole.of_step(step, 5));
    for (const std::int64_t step : {0, 1, 17, 39}) {
      EXPECT_EQ(SampleOrder(sources, seed).of_step(step, 5), steps[static_cast<std::size_t>(step)]) << "seed " << seed;
      EXPECT_EQ(whole.of_step(step, 5), steps[static_cast<std::size_t>(step)]) << "back, with seed " << seed;
    }
  }
}

TEST(SampleOrder, OfOneSourceIsTheOrderOfItsSamples) {
  SampleOrder order({{13, 4}}, 3);
  for (std::int64_t step = 0; step < 9; ++step) EXPECT_EQ(order.of_step(step, 6), samples_of_step(13, step, 6, 3));
}

TEST(SampleOrder, AnEvaluationTakesFromEachSourceByItsShare) {
  const std::vector<SourceShare> sources{{100, 1}, {10, 3}};
  const std::vector<std::int64_t> samples = evenly_spaced_samples(sources, 8);
  EXPECT_EQ(samples, (std::vector<std::int64_t>{25, 75, 100, 101, 103, 105, 106, 108}));
}

// Samples that say which they are.
class Numbers final : public Dataset {
 public:
  Numbers(std::int64_t size, std::int64_t name) : size_(size), name_(name) {}
  [[nodiscard]] std::int64_t size() const override { return size_; }
  [[nodiscard]] Batch batch(std::span<const std::int64_t> samples) const override {
    const at::Tensor numbers = at::tensor(at::ArrayRef<std::int64_t>(samples.data(), samples.size()), at::kLong);
    return {numbers.unsqueeze(1) + name_, numbers};
  }

 private:
  std::int64_t size_;
  std::int64_t name_;
};

Data numbers(std::int64_t size, std::int64_t name, DataKind kind = DataKind::Tokens16) {
  Data data;
  data.description.kind = kind;
  data.description.vocabulary = name;
  data.description.text_bytes = size;
  data.train = std::make_shared<const Numbers>(size, name);
  return data;
}

TEST(Mixture, HasTheSamplesOfAllItsSources) {
  const Data whole = mixed({numbers(4, 100), numbers(2, 200, DataKind::Tokens32), numbers(3, 300)}, {5, 1, 2});
  EXPECT_EQ(whole.train->size(), 9);
  const Batch batch = whole.train->batch(std::vector<std::int64_t>{8, 0, 4, 3, 5, 8});
  EXPECT_TRUE(at::equal(batch.input, at::tensor({302, 100, 200, 103, 201, 302}, at::kLong).unsqueeze(1)));
  EXPECT_TRUE(at::equal(batch.target, at::tensor({2, 0, 0, 3, 1, 2}, at::kLong)));
  EXPECT_EQ(whole.train_sources, (std::vector<SourceShare>{{4, 5}, {2, 1}, {3, 2}}));
  EXPECT_TRUE(whole.held_out_sources.empty());
  EXPECT_EQ(whole.description.vocabulary, 300);
  EXPECT_EQ(whole.description.text_bytes, 9);
}

TEST(Mixture, RefusesSourcesOfSeveralKinds) {
  EXPECT_THROW(static_cast<void>(mixed({numbers(4, 1), numbers(4, 1, DataKind::Text)}, {1, 1})), Error);
}

}  // namespace
}  // namespace penstock::mixture_test
