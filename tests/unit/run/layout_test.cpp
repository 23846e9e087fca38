#include <gtest/gtest.h>

#include "penstock/run/train.h"

namespace penstock {
namespace {

TEST(LayoutOfFewer, KeepsTheReplicasWhereTheRanksDivideIntoThem) {
  TrainSettings settings;
  settings.microbatches = 8;
  settings.replicas = 2;
  settings.stages = 2;
  // Four ranks before, in as many processes.
  EXPECT_EQ(layout_of_fewer(settings, 4, 3), (RunLayout{3, 1}));
  EXPECT_EQ(layout_of_fewer(settings, 4, 2), (RunLayout{1, 2}));
  // In two processes of two ranks each, of which one is left.
  EXPECT_EQ(layout_of_fewer(settings, 2, 1), (RunLayout{1, 2}));
  settings.schedule = "zb-v";
  settings.stages = 4;
  EXPECT_EQ(layout_of_fewer(settings, 4, 2), (RunLayout{2, 2}));
  settings.replicas = 1;
  settings.stages = 8;
  EXPECT_EQ(layout_of_fewer(settings, 4, 3), (RunLayout{6, 1}));
}

}  // namespace
}  // namespace penstock
