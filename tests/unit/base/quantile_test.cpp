#include "penstock/base/quantile.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Quantile, OfNoValuesIsZero) {
  EXPECT_EQ(quantile({}, 0.5), 0);
  EXPECT_EQ(median({}), 0);
}

TEST(Quantile, LiesBetweenItsTwoNeighbours) {
  EXPECT_EQ(quantile({8, 0, 4}, 0), 0);
  EXPECT_EQ(quantile({8, 0, 4}, 0.25), 2);
  EXPECT_EQ(quantile({8, 0, 4}, 1), 8);
  EXPECT_EQ(median({8, 0, 4}), 4);
  EXPECT_EQ(median({8, 0, 4, 6}), 5);
}

}  // namespace
}  // namespace penstock
