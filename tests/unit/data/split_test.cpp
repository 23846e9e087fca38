#include "data/split.h"

#include <gmock/gmock.h>

namespace penstock {
namespace {

using testing::ElementsAre;

std::int64_t length(const std::vector<Range>& ranges) {
  std::int64_t sum = 0;
  for (const Range& range : ranges) sum += range.end - range.begin;
  return sum;
}

TEST(Split, HoldsOutTheLastOfEveryTenBlocks) {
  const Split split = split_windows(20 * held_out_block + 5, 129, 0.1);
  EXPECT_THAT(split.train, ElementsAre(Range{0, 9 * held_out_block}, Range{10 * held_out_block, 19 * held_out_block}));
  EXPECT_THAT(split.held_out, ElementsAre(Range{9 * held_out_block, 10 * held_out_block},
                                          Range{19 * held_out_block, 20 * held_out_block + 5}));
}

TEST(Split, LittleDataIsCutIntoSmallerBlocks) {
  EXPECT_EQ(split_windows(1000, 10, 0.1), (Split{{{0, 900}}, {{900, 1000}}}));
  EXPECT_EQ(split_windows(258, 129, 0.1), (Split{{{0, 129}}, {{129, 258}}}));
  EXPECT_EQ(split_windows(1000, 10, 0), (Split{{{0, 1000}}, {}}));
}

TEST(Split, TogetherTheyAreAllAndEachRangeHasRoomForAWindow) {
  for (const std::int64_t window : {2, 65, 1025, 20'001}) {
    for (const double share : {1e-9, 0.01, 0.1, 1.0 / 3, 0.5, 0.75, 0.999'999'9}) {
      for (const std::int64_t size : {2 * window, 2 * window + 1, 10 * window, 1'000'003 + 2 * window}) {
        const Split split = split_windows(size, window, share);
        EXPECT_EQ(length(split.train) + length(split.held_out), size);
        std::vector<Range> all = split.train;
        all.insert(all.end(), split.held_out.begin(), split.held_out.end());
        std::ranges::sort(all);
        std::int64_t reached = 0;
        for (const Range& range : all) {
          EXPECT_EQ(range.begin, reached);
          EXPECT_GE(range.end - range.begin, window);
          reached = range.end;
        }
        EXPECT_FALSE(split.train.empty() || split.held_out.empty());
      }
    }
  }
}

TEST(Split, TheShareIsMetWhereThereIsEnoughData) {
  for (const double share : {0.01, 0.1, 0.25, 0.3, 0.7}) {
    const std::int64_t size = 2000 * held_out_block;
    const auto held_out = static_cast<double>(length(split_windows(size, 129, share).held_out));
    EXPECT_NEAR(held_out, share * static_cast<double>(size), static_cast<double>(held_out_block));
    EXPECT_NEAR(static_cast<double>(length(split_samples(20'000, share).held_out)), share * 20'000, 1);
  }
}

TEST(Split, OfTwoSamplesOneIsHeldOut) {
  EXPECT_EQ(split_samples(2, 0.1), (Split{{{0, 1}}, {{1, 2}}}));
  EXPECT_EQ(split_samples(1, 0), (Split{{{0, 1}}, {}}));
}

}  // namespace
}  // namespace penstock
