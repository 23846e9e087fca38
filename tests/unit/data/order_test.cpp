#include "penstock/data/order.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <numeric>
#include <set>

namespace penstock {
namespace {

using testing::ElementsAre;

TEST(Order, AnEpochDrawsEverySampleOnce) {
  constexpr std::int64_t size = 103;
  constexpr std::int64_t batch = 7;
  std::vector<std::int64_t> drawn;
  for (std::int64_t step = 0; drawn.size() < 3 * size; ++step)
    for (const std::int64_t sample : samples_of_step(size, step, batch, 42)) drawn.push_back(sample);
  std::set<std::vector<std::int64_t>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int64_t> order(drawn.begin() + epoch * size, drawn.begin() + (epoch + 1) * size);
    orders.insert(order);
    std::ranges::sort(order);
    std::vector<std::int64_t> all(size);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(order, all);
  }
  EXPECT_EQ(orders.size(), 3) << "each epoch has an order of its own";
}

TEST(Order, DependsOnSeedAndStepAlone) {
  const auto first = samples_of_step(1'000'000'007, 12'345, 32, 1);
  static_cast<void>(samples_of_step(10, 3, 5, 9));
  EXPECT_EQ(samples_of_step(1'000'000'007, 12'345, 32, 1), first);
  EXPECT_NE(samples_of_step(1'000'000'007, 12'345, 32, 2), first);
  EXPECT_NE(samples_of_step(1'000'000'007, 12'346, 32, 1), first);
}

TEST(Order, ABatchMayBeLargerThanTheData) {
  auto drawn = samples_of_step(3, 0, 6, 5);
  std::ranges::sort(drawn);
  EXPECT_THAT(drawn, ElementsAre(0, 0, 1, 1, 2, 2));
}

TEST(Order, EvaluationIsSpreadOverAll) {
  EXPECT_THAT(evenly_spaced_samples(100, 4), ElementsAre(12, 37, 62, 87));
  EXPECT_THAT(evenly_spaced_samples(10, 3), ElementsAre(1, 4, 7));
  EXPECT_THAT(evenly_spaced_samples(3, 10), ElementsAre(0, 1, 2)) << "never more than there are";
  const auto huge = evenly_spaced_samples(std::int64_t{1} << 62U, 5);
  EXPECT_TRUE(std::ranges::is_sorted(huge));
  EXPECT_LT(huge.back(), std::int64_t{1} << 62U);
}

}  // namespace
}  // namespace penstock
