#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

#include "penstock/base/error.h"
#include "penstock/plan/plan.h"

namespace penstock {
namespace {

std::int64_t heaviest_stage(const std::vector<std::int64_t>& weights, const Cut& cut) {
  std::int64_t heaviest = 0;
  for (std::size_t stage = 0; stage < cut.size(); ++stage) {
    const auto end = stage + 1 < cut.size() ? cut[stage + 1] : static_cast<std::int64_t>(weights.size());
    heaviest =
        std::max(heaviest, std::accumulate(weights.begin() + cut[stage], weights.begin() + end, std::int64_t{0}));
  }
  return heaviest;
}

// Every cut there is, by taking each boundary or not.
std::int64_t lightest_by_trying_all(const std::vector<std::int64_t>& weights, int stages) {
  auto lightest = std::numeric_limits<std::int64_t>::max();
  const auto boundaries = weights.size() - 1;
  for (std::uint32_t choice = 0; choice < (1U << boundaries); ++choice) {
    Cut cut{0};
    for (std::size_t boundary = 0; boundary < boundaries; ++boundary)
      if ((choice >> boundary & 1U) != 0) cut.push_back(static_cast<std::int64_t>(boundary) + 1);
    if (static_cast<int>(cut.size()) == stages) lightest = std::min(lightest, heaviest_stage(weights, cut));
  }
  return lightest;
}

TEST(Cut, UniformStagesDifferByAtMostOneLayer) {
  EXPECT_EQ(uniform_cut(10, 4), (Cut{0, 3, 5, 8}));
  for (int stages = 1; stages <= 13; ++stages) {
    Cut cut = uniform_cut(13, stages);
    cut.push_back(13);
    for (std::size_t stage = 0; stage + 1 < cut.size(); ++stage) {
      EXPECT_GE(cut[stage + 1] - cut[stage], 13 / stages);
      EXPECT_LE(cut[stage + 1] - cut[stage], 13 / stages + 1);
    }
  }
}

TEST(Cut, BalancedIsTheBestThereIs) {
  std::mt19937 draw(4);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<std::int64_t> weights(1 + draw() % 9);
    for (auto& weight : weights) weight = static_cast<std::int64_t>(draw() % 20);
    const int stages = 1 + static_cast<int>(draw() % weights.size());
    const Cut cut = balanced_cut(weights, stages);
    ASSERT_EQ(static_cast<int>(cut.size()), stages);
    EXPECT_TRUE(std::is_sorted(cut.begin(), cut.end(), std::less_equal<>()));
    EXPECT_EQ(heaviest_stage(weights, cut), lightest_by_trying_all(weights, stages));
  }
}

TEST(Cut, IsMadeOfWhatWasChosen) {
  EXPECT_EQ(cut_of("3,6,9", 12, 4), (Cut{0, 3, 6, 9}));
  EXPECT_EQ(cut_of("uniform", 12, 4), (Cut{0, 3, 6, 9}));
}

TEST(Cut, RefusesWhatIsNoCut) {
  for (const char* text : {"3,12", "3", "3,6,9"}) EXPECT_THROW(static_cast<void>(cut_of(text, 12, 3)), Error) << text;
  EXPECT_THROW(static_cast<void>(cut_of("auto", 12, 3)), InvariantViolation);
  EXPECT_THROW(static_cast<void>(cut_of("parameters", 12, 3)), InvariantViolation);
  EXPECT_THROW(static_cast<void>(uniform_cut(3, 4)), Error);
  EXPECT_THROW(static_cast<void>(uniform_cut(3, 0)), Error);
  EXPECT_THROW(static_cast<void>(balanced_cut({1, 2}, 3)), Error);
}

TEST(Cut, IsTheChoiceThatMakesIt) {
  const Cut cut{0, 3, 4, 9};
  EXPECT_EQ(choice_of(cut), CutChoice("3,4,9"));
  EXPECT_EQ(cut_of(choice_of(cut), 10, 4), cut);
  EXPECT_EQ(choice_of({0}), CutChoice::Uniform);
}

}  // namespace
}  // namespace penstock
