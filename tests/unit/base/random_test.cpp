#include "penstock/base/random.h"

#include <gtest/gtest.h>
#include <set>

namespace penstock {
namespace {

TEST(Random, KeysDependOnEveryPartAndOnTheirOrder) {
  EXPECT_EQ(mix_key({1, 2, 3}), mix_key({1, 2, 3}));
  EXPECT_NE(mix_key({1, 2, 3}), mix_key({1, 3, 2}));
  EXPECT_NE(mix_key({1, 2}), mix_key({1, 2, 0}));
}

TEST(Random, APermutationVisitsEveryElementOnce) {
  for (const std::uint64_t size : {1, 2, 3, 4, 5, 17, 64, 1000, 4097}) {
    const Permutation permutation(size, 7);
    std::set<std::uint64_t> seen;
    for (std::uint64_t position = 0; position < size; ++position) seen.insert(permutation(position));
    EXPECT_EQ(seen.size(), size);
    EXPECT_LT(*seen.rbegin(), size);
  }
}

TEST(Random, AnotherKeyIsAnotherOrder) {
  const Permutation a(1000, 1);
  const Permutation b(1000, 2);
  int equal = 0;
  for (std::uint64_t position = 0; position < 1000; ++position) equal += a(position) == b(position) ? 1 : 0;
  EXPECT_LT(equal, 20);
}

}  // namespace
}  // namespace penstock
