#include <gtest/gtest.h>

#include "penstock/schedule/generators.h"

#include "unit/schedule/refused.h"

namespace penstock {
namespace {

TEST(Text, WritesTheCellsOfTorch) {
  EXPECT_EQ(to_string(Action{ActionKind::SendForward, {3}, {1}}), "3SEND_F1");
  EXPECT_EQ(to_csv(one_f_one_b_schedule(2, 3)), "0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n");
}

TEST(Text, ReadsBackWhatItWrites) {
  for (const char* text :
       {"0F0,0I0,0W0\n", "0F0,,,0B0\n1F0,1B0,\n", "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
        "\"\"\n0F0,0B0\n", "\n0F0,0B0\n", "0UNSHARD,0F0,0B0,0REDUCE_GRAD,0RESHARD\n",
        "0F0,0F1,(0F2;1B0)OVERLAP_F_B,1F2\n", ",\n0F0,0B0\n"}) {
    const Schedule schedule = parse_schedule(text);
    EXPECT_EQ(to_csv(schedule), text);
    EXPECT_EQ(parse_schedule(to_csv(schedule)), schedule);
  }
}

TEST(Text, DeducesSizesAndHolders) {
  const Schedule schedule = parse_schedule("0F0,1F1,0B0,1B1\n1F0,0F1,1B0,0B1");
  EXPECT_EQ(schedule.stages, 2);
  EXPECT_EQ(schedule.microbatches, 2);
  EXPECT_EQ(schedule.ranks(), 2);
  EXPECT_FALSE(schedule.forward_only);
  const std::vector<RankId> both{RankId{0}, RankId{1}};
  EXPECT_EQ(schedule.placement.holders, (std::vector{both, both}));
  EXPECT_TRUE(parse_schedule("0F0\n").forward_only);
}

TEST(Text, TakesBlanksAndCarriageReturns) {
  EXPECT_EQ(parse_schedule("\xEF\xBB\xBF 0F0 ,\t0B0\r\n"), parse_schedule("0F0,0B0\n"));
  EXPECT_EQ(parse_schedule("0F0,0F1,( 0F2 ; 0B0 ) OVERLAP_F_B"), parse_schedule("0F0,0F1,(0F2;0B0)OVERLAP_F_B"));
}

TEST(Text, TakesTheQuotesOfSpreadsheets) {
  EXPECT_EQ(parse_schedule("\"0F0\",\"\",\" 0B0 \"\r\n\"1F0\",1B0,\"\"\r\n"), parse_schedule("0F0,,0B0\n1F0,1B0,\n"));
  EXPECT_EQ(parse_schedule(R"(0F0,0F1,"(0F2;0B0)OVERLAP_F_B")"), parse_schedule("0F0,0F1,(0F2;0B0)OVERLAP_F_B"));
  for (const char* cell : {R"("0F0)", R"(0F0")", R"(")", R"(""0F0"")", R"("xyz")"})
    EXPECT_NE(refused([&] { return parse_schedule(std::string("0F0,") + cell); }), "") << cell;
}

TEST(Text, NamesRowAndColumnOfWhatIsNoAction) {
  EXPECT_EQ(refused([] { return parse_schedule("0F0,0B0\n1F0,xyz,1B0\n"); }),
            "row 2, column 2 holds 'xyz'; expected an action such as 2F0, 1SEND_F3, 0REDUCE_GRAD or "
            "(0F1;1B2)OVERLAP_F_B, or nothing; correct the cell");
  for (const char* cell : {"F0", "0F", "0X1", "0F1x", "-1F0", "0F-1", "99999999999F0", "2000000000F0", "0UNSHARD1",
                           "(0F0)OVERLAP_F_B", "(0F0;0B1)", "(0F0;0B1)OVERLAP", "(0F0;0RECV_F1)OVERLAP_F_B", "(0F0;0B1",
                           "(0F0;0B1;0F2)OVERLAP_F_B", "0f0", "0F0 0B0"}) {
    EXPECT_EQ(refused([&] { return parse_schedule(std::string("0F0,") + cell); }).rfind("row 1, column 2 holds", 0), 0U)
        << cell;
  }
}

TEST(Text, AMessageStaysOnOneShortLine) {
  const std::string message = refused([] { return parse_schedule(std::string(100'000, '\x01')); });
  EXPECT_LT(message.size(), 250U);
  EXPECT_EQ(message.find_first_of("\n\x01"), std::string::npos);
}

TEST(Text, CountsCellsBeforeItMakesRoomForThem) {
  std::string cells;
  cells.resize(25'000'001, ',');
  EXPECT_NE(refused([&] { return parse_schedule(cells); }).find("at most 25000000"), std::string::npos);
}

TEST(Text, RefusesATextWithoutActionsAndIdsWithoutSense) {
  EXPECT_NE(refused([] { return parse_schedule(""); }).find("holds no action"), std::string::npos);
  EXPECT_NE(refused([] { return parse_schedule("0UNSHARD\n"); }).find("holds no action"), std::string::npos);
  EXPECT_NE(refused([] { return parse_schedule("900000000F0\n"); }).find("names stage 900000000"), std::string::npos);
  EXPECT_NE(refused([] { return parse_schedule("0F900000000\n"); }).find("microbatch"), std::string::npos);
}

}  // namespace
}  // namespace penstock
