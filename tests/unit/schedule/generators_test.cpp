#include "penstock/schedule/generators.h"

#include <algorithm>
#include <gtest/gtest.h>

#include "penstock/schedule/lower.h"

#include "unit/schedule/refused.h"

namespace penstock {
namespace {

TEST(Generators, ClassicShapes) {
  EXPECT_EQ(to_csv(naive_schedule(2, 2)), "0F0,0B0,0F1,0B1\n1F0,1B0,1F1,1B1\n");
  EXPECT_EQ(to_csv(gpipe_schedule(2, 2)), "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n");
  EXPECT_EQ(to_csv(one_f_one_b_schedule(3, 2)), "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n2F0,2B0,2F1,2B1\n");
}

TEST(Generators, AreCorrectForAllSmallSizesAndLower) {
  for (const char* name : {"naive", "gpipe", "1f1b"})
    for (int ranks = 1; ranks <= 6; ++ranks)
      for (int microbatches = 1; microbatches <= 13; ++microbatches) {
        const VerifiedSchedule schedule = verify(make_schedule(name, ranks, microbatches));
        EXPECT_EQ(schedule->ranks(), ranks);
        const VerifiedSchedule lowered = lower(schedule);
        std::size_t actions = 0;
        for (const auto& row : lowered->actions) actions += row.size();
        EXPECT_EQ(actions, static_cast<std::size_t>(microbatches * (2 * ranks + 4 * (ranks - 1))));
      }
}

TEST(Generators, PeakActivations) {
  for (int ranks = 1; ranks <= 6; ++ranks)
    for (int microbatches = 1; microbatches <= 13; ++microbatches)
      for (int rank = 0; rank < ranks; ++rank) {
        const auto at = static_cast<std::size_t>(rank);
        EXPECT_EQ(peak_activations(naive_schedule(ranks, microbatches)).at(at), 1);
        EXPECT_EQ(peak_activations(gpipe_schedule(ranks, microbatches)).at(at), microbatches);
        EXPECT_EQ(peak_activations(one_f_one_b_schedule(ranks, microbatches)).at(at),
                  std::min(ranks - rank, microbatches));
      }
}

TEST(Generators, RefuseSizesBelowOneAndUnknownNames) {
  EXPECT_EQ(refused([] { return gpipe_schedule(0, 4); }),
            "a schedule of 0 ranks with 1 stages each and 4 microbatches; expected at least 1 of each; raise the "
            "smallest number");
  EXPECT_NE(refused([] {
              return make_schedule("2f2b", 2, 4);
            }).find("no schedule '2f2b'; expected one of naive, gpipe, 1f1b"),
            std::string::npos);
}

}  // namespace
}  // namespace penstock
