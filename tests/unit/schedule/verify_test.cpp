#include "penstock/schedule/verify.h"

#include <gtest/gtest.h>

#include "penstock/schedule/generators.h"

#include "unit/schedule/refused.h"

namespace penstock {
namespace {

std::string refusal_of(const char* text, const VerifyOptions& options = {}) {
  return refused([&] { return verify(parse_schedule(text), options); });
}

TEST(Verify, ARefusalNamesThePlaceAndShowsTheNeighbourhood) {
  EXPECT_EQ(
      refusal_of("0F0,0F1,0B1,0B0\n1F0,1F1,1B0,1B1\n"),
      "rank 0, position 3: 0B0 adds its gradient after 0B1 at position 2; expected the gradients of a stage in the "
      "order of the microbatches; exchange the two\n"
      "              0     1     2     3     4     5     6\n"
      "rank    0   0F0   0F1   0B1 >0B0<\n"
      "rank    1   1F0   1F1   1B0   1B1");
}

TEST(Verify, ADeadlockPrintsItsCircle) {
  EXPECT_EQ(
      first_line(refusal_of("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")),
      "rank 0, position 1: 0B0 waits for itself in a circle of 2 ranks: 0B0 (rank 0, position 1) waits for 1B0 "
      "(rank 1, position 2, behind 1F1), 1F1 (rank 1, position 1) waits for 0F1 (rank 0, position 2, behind 0B0); "
      "expected an order in which some rank can always go on; move one of these actions ahead of what it waits for");
}

TEST(Verify, BlockingSendsStandStillWhereOthersDoNot) {
  const Schedule lowered = lower(verify(one_f_one_b_schedule(2, 4))).get();
  EXPECT_NO_THROW(static_cast<void>(verify(lowered)));
  EXPECT_NE(first_line(refused([&] {
              return verify(lowered, {.sends = SendMode::Blocking});
            })).find("waits for itself in a circle of 2 ranks"),
            std::string::npos);
  EXPECT_NO_THROW(static_cast<void>(verify(lower(verify(gpipe_schedule(3, 4))).get(), {.sends = SendMode::Blocking})));
}

TEST(Verify, AMemoryCapNamesThePeak) {
  EXPECT_EQ(
      first_line(refused([] { return verify(gpipe_schedule(2, 4), {.memory_cap = 2}); })),
      "rank 0, position 2: 0F2 makes its rank hold 3 activations; expected at most 2, the memory cap; do a backward "
      "first, or raise the cap to 4, the schedule's peak");
  EXPECT_NO_THROW(static_cast<void>(verify(one_f_one_b_schedule(2, 4), {.memory_cap = 2})));
}

TEST(Verify, ValuesThatNoTextCanHold) {
  Schedule schedule = one_f_one_b_schedule(2, 2);
  schedule.placement.holders.pop_back();
  EXPECT_NE(refused([&] { return verify(schedule); }).find("a placement of 1 stage for"), std::string::npos);
  schedule = one_f_one_b_schedule(2, 2);
  schedule.placement.holders[1] = {RankId{7}};
  EXPECT_NE(refused([&] { return verify(schedule); }).find("stage 1 is held by ranks 7"), std::string::npos);
  schedule = one_f_one_b_schedule(2, 2);
  schedule.microbatches = 1'000'000'000;
  EXPECT_NE(refused([&] { return verify(schedule); }).find("rank 0, position 4, the end: 0F2 is missing"),
            std::string::npos);
  schedule = one_f_one_b_schedule(2, 2);
  schedule.actions[0][0].stage = {-5};
  EXPECT_NE(refused([&] { return verify(schedule); }).find("does not have"), std::string::npos);
  EXPECT_NE(refused([] { return verify(Schedule{}); }).find("at least 1 of each"), std::string::npos);
}

TEST(Verify, AnotherOrderOfTheGradientsPassesOnlyWhereItIsAskedFor) {
  const Schedule backwards = parse_schedule("0F0,0F1,0B1,0B0\n");
  EXPECT_NE(refused([&] { return verify(backwards); }).find("in the order of the microbatches"), std::string::npos);
  const VerifiedSchedule verified = verify(backwards, {.accumulation = Accumulation::AnyOrder});
  EXPECT_EQ(verified.accumulation(), Accumulation::AnyOrder);
  EXPECT_EQ(lower(verified).accumulation(), Accumulation::AnyOrder);
}

TEST(Verify, AForwardOnlyScheduleSaysSo) {
  Schedule schedule = parse_schedule("0F0\n1F0\n");
  EXPECT_NO_THROW(static_cast<void>(verify(schedule)));
  schedule.forward_only = false;
  EXPECT_NE(refused([&] { return verify(schedule); }).find("0B0 is missing"), std::string::npos);
}

}  // namespace
}  // namespace penstock
