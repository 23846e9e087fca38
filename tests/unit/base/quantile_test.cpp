#include "penstock/base/quantile.h"

#include <cmath>
#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Quantile, OfNoValuesIsZero) {
  EXPECT_EQ(quantile({}, 0.5), 0);
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(mean({}), 0);
  EXPECT_EQ(error_of_median({}), 0);
}

TEST(Quantile, LiesBetweenItsTwoNeighbours) {
  EXPECT_EQ(quantile({8, 0, 4}, 0), 0);
  EXPECT_EQ(quantile({8, 0, 4}, 0.25), 2);
  EXPECT_EQ(quantile({8, 0, 4}, 1), 8);
  EXPECT_EQ(median({8, 0, 4}), 4);
  EXPECT_EQ(median({8, 0, 4, 6}), 5);
}

TEST(Quantile, AMeanCountsWhatAMedianDoesNot) {
  EXPECT_EQ(mean({1, 1, 1, 97}), 25);
  EXPECT_EQ(median({1, 1, 1, 97}), 1);
}

TEST(Quantile, TheErrorOfAMedianComesFromTheMiddleHalf) {
  EXPECT_EQ(error_of_median({7}), 0);
  // A middle half from 1 to 3 of five values.
  EXPECT_NEAR(error_of_median({0, 1, 2, 3, 4}), 0.929 * 2 / std::sqrt(5.0), 1e-12);
  EXPECT_EQ(error_of_median({0, 1, 2, 3, 1e9}), error_of_median({0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace penstock
