#include "penstock/cost/ledger.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

/// Sizes of which no two sums of a few are equal.
StageCost stage() {
  StageCost stage{{10}, {6}, {5}, {1000}, {70}, {100'000}, {200'000}, {400'000}};
  stage.weight_activation_share = 0.25;
  stage.forward_workspace = {1};
  stage.backward_workspace = {2};
  stage.input_workspace = {4};
  stage.weight_workspace = {8};
  stage.gradient_at_peak = {16};
  return stage;
}

TEST(Ledger, KeepsTheGradientsOfATreeFromTheFirstOneOn) {
  StageCost with_tree = stage();
  with_tree.kept_gradients = {400'000};
  const StageBoundaries none;
  const Bytes more = memory_of_pass(with_tree, Pass::Backward, none, true).at_end -
                     memory_of_pass(stage(), Pass::Backward, none, true).at_end;
  EXPECT_EQ(more, Bytes{400'000});
  EXPECT_EQ(memory_of_pass(with_tree, Pass::Backward, none, false),
            memory_of_pass(stage(), Pass::Backward, none, false));
  EXPECT_EQ(memory_of_weights_with_gradients(with_tree) - memory_of_weights_with_gradients(stage()), Bytes{400'000});
}

constexpr StageBoundaries remote{{50}, {70}};
constexpr StageBoundaries local{{50}, {70}, true, true};

TEST(Ledger, AWholeBackwardTakesTheTimeOfItsTwoParts) {
  EXPECT_EQ(duration_of(stage(), Pass::Forward), Milliseconds{10});
  EXPECT_EQ(duration_of(stage(), Pass::InputBackward), Milliseconds{6});
  EXPECT_EQ(duration_of(stage(), Pass::WeightBackward), Milliseconds{5});
  EXPECT_EQ(duration_of(stage(), Pass::Backward), Milliseconds{11});
  EXPECT_EQ(duration_of_microbatch(stage()), Milliseconds{21});
}

TEST(Ledger, AForwardKeepsItsActivationAndItsOutput) {
  EXPECT_EQ(memory_of_pass(stage(), Pass::Forward, remote, false), (PassMemory{{1001}, {69}, {70}}));
  EXPECT_EQ(memory_of_pass(stage(), Pass::Forward, remote, false, true), (PassMemory{{1001}, {-931}, {70}}));
}

TEST(Ledger, AnInputFromTheSameRankBecomesAPartOfTheActivation) {
  EXPECT_EQ(memory_of_pass(stage(), Pass::Forward, local, false), (PassMemory{{951}, {69}, {70}}));
}

TEST(Ledger, ABackwardFreesTheActivationAndKeepsGradients) {
  EXPECT_EQ(memory_of_pass(stage(), Pass::Backward, remote, false), (PassMemory{{72}, {-1022}, {50}}));
  EXPECT_EQ(memory_of_pass(stage(), Pass::Backward, remote, true), (PassMemory{{88}, {198'962}, {50}}));
  EXPECT_EQ(memory_of_pass(stage(), Pass::Backward, local, false), (PassMemory{{2}, {-1022}, {50}}));
}

TEST(Ledger, WhereNoGradientReturnsNoneIsHeld) {
  StageBoundaries frozen_before = remote;
  frozen_before.input_returns_gradient = false;
  EXPECT_EQ(memory_of_pass(stage(), Pass::Backward, frozen_before, false), (PassMemory{{72}, {-1072}, {}}));
  EXPECT_EQ(memory_of_pass(stage(), Pass::Forward, frozen_before, false),
            memory_of_pass(stage(), Pass::Forward, remote, false));
  StageBoundaries frozen = frozen_before;
  frozen.output_returns_gradient = false;
  EXPECT_EQ(memory_of_pass(stage(), Pass::Backward, frozen, false), (PassMemory{{2}, {-1002}, {}}));
}

TEST(Ledger, ASplitBackwardFreesTheActivationInTwoParts) {
  EXPECT_EQ(memory_of_pass(stage(), Pass::InputBackward, remote, false), (PassMemory{{74}, {-774}, {50}}));
  EXPECT_EQ(memory_of_pass(stage(), Pass::WeightBackward, remote, false), (PassMemory{{8}, {-258}, {}}));
  EXPECT_EQ(memory_of_pass(stage(), Pass::WeightBackward, remote, true), (PassMemory{{24}, {199'726}, {}}));
}

TEST(Ledger, TheFirstGradientOfAStageIsNotThatOfAnInput) {
  EXPECT_EQ(memory_of_pass(stage(), Pass::InputBackward, remote, true),
            memory_of_pass(stage(), Pass::InputBackward, remote, false));
}

TEST(Ledger, WhatTheTwoPartsOfABackwardFreeIsTheActivation) {
  StageCost odd = stage();
  odd.activation = {1001};
  odd.weight_activation_share = 1.0 / 3;
  EXPECT_EQ(activation_for_weights(odd), Bytes{334});
  const Bytes freed =
      activation_change(odd, Pass::InputBackward).at_end + activation_change(odd, Pass::WeightBackward).at_end;
  EXPECT_EQ(freed, activation_change(odd, Pass::Backward).at_end);
  EXPECT_EQ(freed, Bytes{-1001});
  EXPECT_EQ(memory_of_activations(odd, {2, 3}), 2 * 1001 + 3 * 334);
}

TEST(Ledger, APeakIsEstimatedFromTheFullestCounts) {
  const double others = 700'000 + 50 + 70 + 8;
  EXPECT_EQ(estimated_peak(stage(), {}, remote), others);
  EXPECT_EQ(estimated_peak(stage(), {{2, 0}, {1, 6}}, remote), others + 2500);
}

}  // namespace
}  // namespace penstock
