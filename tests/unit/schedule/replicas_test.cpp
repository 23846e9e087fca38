#include "penstock/schedule/replicas.h"

#include <algorithm>
#include <gtest/gtest.h>

#include "penstock/schedule/generators.h"
#include "penstock/schedule/verify.h"

#include "unit/schedule/refused.h"

namespace penstock {
namespace {

TEST(Replicas, ShareMicrobatchesOutInOrderAndEvenly) {
  std::vector<int> shares;
  shares.reserve(3);
  for (int replica = 0; replica < 3; ++replica) shares.push_back(microbatches_of_replica(8, 3, replica));
  EXPECT_EQ(shares, (std::vector{2, 3, 3}));
  EXPECT_EQ(microbatches_of_replica(8, 1, 0), 8);
}

TEST(Replicas, AreOneScheduleOfTheirOwnRanksAndMicrobatches) {
  const Schedule both = side_by_side({gpipe_schedule(2, 1), gpipe_schedule(2, 2)});
  EXPECT_EQ(to_csv(both), "0F0,0B0\n1F0,1B0\n0F1,0F2,0B1,0B2\n1F1,1F2,1B1,1B2\n");
  EXPECT_EQ(both, parse_schedule(to_csv(both)));
  EXPECT_EQ(side_by_side({gpipe_schedule(2, 3)}), gpipe_schedule(2, 3));
}

TEST(Replicas, OfEveryFamilyVerifyAndLower) {
  for (const ScheduleFamily& family : schedule_families()) {
    const int ranks = 2 * family.ranks_multiple;
    SCOPED_TRACE(family.name);
    const Schedule one = make_schedule(family.name, ranks, 4 * ranks);
    const Schedule three = side_by_side({one, one, one});
    const VerifiedSchedule lowered = lower(verify(three));
    EXPECT_EQ(lowered.get(), side_by_side(std::vector(3, lower(verify(one)).get())));
    for (const auto& holders : three.placement.holders)
      EXPECT_EQ(holders.size(), 3 * one.placement.holders.front().size());
  }
}

TEST(Replicas, OfDifferentPipelinesAreRefused) {
  EXPECT_NE(
      refused([] { return side_by_side({gpipe_schedule(2, 1), gpipe_schedule(3, 1)}); }).find("2 and of 3 stages"),
      std::string::npos);
}

}  // namespace
}  // namespace penstock
