// What a layout stands for: its schedule, its ranks, and how it goes on with fewer processes.
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/schedule/generators.h"
#include "penstock/settings/checks.h"
#include "penstock/settings/settings.h"

namespace penstock::layout_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

Layout layout_of(const ScheduleChoice& schedule, int stages, int microbatches, int replicas = 1) {
  Layout layout;
  layout.schedule = schedule;
  layout.stages = stages;
  layout.microbatches = microbatches;
  layout.replicas = replicas;
  return layout;
}

std::string schedule_file(const std::string& text) {
  const auto file =
      std::filesystem::path(testing::TempDir()) / ("penstock_layout_" + std::to_string(::getpid()) + ".csv");
  write_file_atomically(file, text);
  return file.string();
}

TEST(LayoutSchedule, HasTheRanksThatItsLayoutSays) {
  for (const ScheduleFamily& family : schedule_families()) {
    if (family.forward_only) continue;
    for (const int replicas : {1, 2}) {
      const Layout layout = layout_of(std::string(family.name), 4 * family.stages_per_rank, 8, replicas);
      SCOPED_TRACE(family.name);
      check_schedule(layout);
      EXPECT_EQ(ranks_of(layout), 4 * replicas);
      EXPECT_EQ(schedule_of(layout)->ranks(), ranks_of(layout));
      EXPECT_EQ(schedule_of(layout)->microbatches, 8);
    }
  }
}

TEST(LayoutSchedule, IsRefusedAlikeWhetherItIsMadeOrOnlyChecked) {
  const std::string forwards = schedule_file("0F0,0F1\n1F0,1F1\n");
  const std::vector<std::pair<Layout, std::string>> cases = {
      {layout_of("zigzag", 2, 4), "there is no schedule 'zigzag'; expected one of naive"},
      {layout_of("zb-v", 3, 4), "zb-v with `stages` = 3; expected a multiple of 2"},
      {layout_of("chimera", 3, 4), "an even number of ranks"},
      {layout_of("forward-only", 2, 4), "a schedule without backward passes"},
      {layout_of("1f1b", 30'001, 4), "30001 ranks"},
      {layout_of("dualpipe", 3, 4, 2), "replica 0 of 2, with 2 microbatches: dualpipe on 3 ranks"},
      {layout_of("1f1b", 2, 1, 2), "replica 0 of 2, with 0 microbatches"},
      {layout_of("none.csv", 2, 2), "none.csv"},
      {layout_of(forwards, 2, 2), "without backward passes"},
      {layout_of(forwards, 3, 2), "it has 2 stages and 2 microbatches; expected `stages` = 3 and `microbatches` is 2"},
  };
  for (const auto& [layout, words] : cases) {
    EXPECT_THAT([&layout] { check_schedule(layout); }, ThrowsMessage<Error>(HasSubstr(words)));
    EXPECT_THAT([&layout] { static_cast<void>(schedule_of(layout)); }, ThrowsMessage<Error>(HasSubstr(words)));
  }
}

TEST(LayoutSchedule, OfAFileIsReadForItsRanks) {
  const std::string file = schedule_file("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n");
  const Layout layout = layout_of(file, 2, 4, 2);
  EXPECT_EQ(ranks_of(layout), 4);
  EXPECT_EQ(schedule_of(layout)->ranks(), 4);
}

TEST(LayoutOnFewer, KeepsTheReplicasWhereTheRanksDivideIntoThem) {
  const auto fewer = [](Layout layout, int before, int processes) {
    const Layout left = layout_on_fewer(layout, before, processes);
    // All else stays.
    layout.stages = left.stages;
    layout.replicas = left.replicas;
    EXPECT_EQ(left, layout);
    return std::pair(left.stages, left.replicas);
  };
  const Layout two = layout_of("1f1b", 2, 8, 2);
  // Four ranks before, in as many processes.
  EXPECT_EQ(fewer(two, 4, 3), std::pair(3, 1));
  EXPECT_EQ(fewer(two, 4, 2), std::pair(1, 2));
  // In two processes of two ranks each, of which one is left.
  EXPECT_EQ(fewer(two, 2, 1), std::pair(1, 2));
  EXPECT_EQ(fewer(layout_of("zb-v", 4, 8, 2), 4, 2), std::pair(2, 2));
  EXPECT_EQ(fewer(layout_of("zb-v", 8, 8), 4, 3), std::pair(6, 1));
}

TEST(LayoutOnFewer, TakesReplicasThatTheGradientTreeAllows) {
  Layout four = layout_of("1f1b", 1, 8, 4);
  EXPECT_EQ(layout_on_fewer(four, 4, 3).replicas, 3);
  four.gradient_tree = 4;
  const Layout left = layout_on_fewer(four, 4, 3);
  EXPECT_EQ(std::pair(left.stages, left.replicas), std::pair(3, 1));
  EXPECT_EQ(layout_on_fewer(four, 4, 2).replicas, 2);
}

TEST(LayoutOnFewer, CutsAnewAndSharesNothingWithNobody) {
  Layout layout = layout_of("1f1b", 2, 8, 2);
  layout.cut = "3";
  layout.ranks = 4;
  layout.zero = 1;
  const Layout left = layout_on_fewer(layout, 4, 3);
  EXPECT_EQ(left.cut, CutChoice::Uniform);
  EXPECT_TRUE(left.ranks.are_the_schedules());
  EXPECT_EQ(left.zero, 0) << "a single replica keeps all of the optimizer's state";
  EXPECT_EQ(layout_on_fewer(layout, 4, 2).zero, 1);
  layout.cut = CutChoice::ByParameters;
  EXPECT_EQ(layout_on_fewer(layout, 4, 3).cut, CutChoice::ByParameters);
}

TEST(LayoutOnFewer, IsRefusedWhereTheScheduleHasNone) {
  EXPECT_THAT([] { static_cast<void>(layout_on_fewer(layout_of("chimera", 2, 4), 2, 1)); },
              ThrowsMessage<Error>(AllOf(HasSubstr("no chimera on 1 ranks"), HasSubstr("`elastic`"))));
}

TEST(Layout, IsAutomaticWhereAnyChoiceIs) {
  EXPECT_FALSE(is_automatic(Layout()));
  EXPECT_TRUE(is_automatic({.ranks = automatic}));
  EXPECT_TRUE(is_automatic({.cut = automatic}));
  EXPECT_TRUE(is_automatic({.schedule = automatic}));
  EXPECT_TRUE(is_automatic({.microbatches = automatic}));
  EXPECT_TRUE(is_automatic({.recompute = automatic}));
}

}  // namespace
}  // namespace penstock::layout_test
