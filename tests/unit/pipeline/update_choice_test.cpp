#include "pipeline/update_choice.h"

#include <gtest/gtest.h>
#include <limits>
#include <vector>

namespace penstock::update_choice_test {
namespace {

// Makes steps that take so long where the update before waited, and where it went first. Returns how many went first.
int steps(UpdateChoice& choice, int count, double waiting_ms, double first_ms) {
  int first = 0;
  bool before = false;
  for (int step = 0; step < count; ++step) {
    const double pace = before ? first_ms : waiting_ms;
    before = choice.goes_first();
    first += before ? 1 : 0;
    choice.saw({pace, pace * 1.1});
  }
  return first;
}

constexpr int period = 512;
constexpr int measured = 28;  // the first steps of a period, with what settles before

TEST(UpdateChoice, KeepsTheFasterWay) {
  UpdateChoice fast(std::nullopt);
  EXPECT_EQ(steps(fast, measured + 1, 100, 90), 12) << "three turns of four";
  EXPECT_EQ(steps(fast, period - measured - 1, 100, 90), period - measured - 1);
  UpdateChoice slow(std::nullopt);
  EXPECT_EQ(steps(slow, period, 100, 102), 12);
}

TEST(UpdateChoice, LeavesTheMemoryForAGainThatIsNone) {
  UpdateChoice choice(std::nullopt);
  EXPECT_EQ(steps(choice, period, 100, 99.5), 12);
}

TEST(UpdateChoice, IsMeasuredAnew) {
  UpdateChoice choice(std::nullopt);
  EXPECT_EQ(steps(choice, period, 100, 90), 12 + period - measured - 1);
  // The first of the next period still goes as was found last.
  EXPECT_LT(steps(choice, period, 90, 100), 20);
}

TEST(UpdateChoice, OfOneSlowStepChangesNothing) {
  UpdateChoice choice(std::nullopt);
  bool before = false;
  for (int step = 0; step < measured + 1; ++step) {
    const double pace = before ? 90 : 100;
    before = choice.goes_first();
    choice.saw({step == 11 || step == 19 ? 900 : pace});
  }
  EXPECT_TRUE(choice.goes_first());
}

TEST(UpdateChoice, IsWhatSomebodyAskedFor) {
  for (const bool asked : {false, true}) {
    UpdateChoice choice(asked);
    EXPECT_EQ(steps(choice, period, 100, asked ? 200 : 50), asked ? period : 0);
    EXPECT_FALSE(choice.measures());
  }
}

TEST(UpdateChoice, WaitsWhereARankHasNoRoom) {
  UpdateChoice choice(std::nullopt);
  EXPECT_EQ(steps(choice, 10, 100, 50), 2);
  choice.saw({100, std::numeric_limits<double>::infinity()});
  EXPECT_EQ(steps(choice, period, 100, 50), 0);
}

TEST(UpdateChoice, DoesNotCountWhatIsNotKnown) {
  UpdateChoice choice(std::nullopt);
  EXPECT_EQ(steps(choice, period, 0, 0), 12);
}

}  // namespace
}  // namespace penstock::update_choice_test
