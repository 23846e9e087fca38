#include "penstock/nn/ties.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <torch/nn/modules/linear.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"

namespace penstock::ties_test {
namespace {

using testing::StartsWith;
using testing::ThrowsMessage;

Tie tie(std::int64_t owner, std::int64_t copy) { return {{owner, "weight"}, {copy, "weight"}}; }

TieGroup group(std::int64_t owner, const std::vector<std::int64_t>& members) {
  TieGroup group{{owner, "weight"}, {}};
  for (const std::int64_t layer : members) group.members.push_back({layer, "weight"});
  return group;
}

void expect_groups(std::vector<Tie> ties, const std::vector<TieGroup>& expected) {
  EXPECT_EQ(tie_groups(ties), expected);
  std::reverse(ties.begin(), ties.end());
  EXPECT_EQ(tie_groups(ties), expected);
}

TEST(TieGroups, StarsChainsAndOwnersInTheMiddleAreOneGroupInAnyOrderOfTheTies) {
  expect_groups({}, {});
  expect_groups({tie(0, 5)}, {group(0, {0, 5})});
  expect_groups({tie(5, 0)}, {group(5, {0, 5})});
  expect_groups({tie(0, 2), tie(0, 5), tie(0, 3)}, {group(0, {0, 2, 3, 5})});
  expect_groups({tie(0, 3), tie(3, 5), tie(5, 1)}, {group(0, {0, 1, 3, 5})});
  expect_groups({tie(3, 0), tie(3, 5)}, {group(3, {0, 3, 5})});
  expect_groups({tie(2, 3), tie(2, 3)}, {group(2, {2, 3})});
  expect_groups({tie(6, 7), tie(1, 4), tie(4, 2)}, {group(1, {1, 2, 4}), group(6, {6, 7})});
}

TEST(TieGroups, ChainsThatMeetInTheEndAndACircleBehindAnOwnerAreOneGroup) {
  expect_groups({tie(0, 1), tie(2, 3), tie(1, 2)}, {group(0, {0, 1, 2, 3})});
  expect_groups({tie(0, 1), tie(1, 2), tie(2, 1)}, {group(0, {0, 1, 2})});
}

TEST(TieGroups, ParametersOfOneLayerAreTiedByTheirNames) {
  const std::vector<TieGroup> groups = tie_groups({{{1, "right"}, {1, "left"}}, {{1, "bias"}, {0, "bias"}}});
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(to_text(groups[0].owner), "layer 1 bias");
  EXPECT_EQ(to_text(groups[0].members.front()), "layer 0 bias");
  EXPECT_EQ(to_text(groups[1].owner), "layer 1 right");
  EXPECT_EQ(to_text(groups[1].members.front()), "layer 1 left");
  EXPECT_EQ(group_of(groups, {1, "left"}), &groups[1]);
  EXPECT_EQ(group_of(groups, {0, "left"}), nullptr);
}

TEST(TieGroups, WhatHasNoSingleOwnerIsRefusedInOneLine) {
  EXPECT_THAT(
      [] { static_cast<void>(tie_groups({tie(2, 2)})); },
      ThrowsMessage<Error>("a tie of layer 2 weight with itself; expected two parameters; correct Network::ties"));
  EXPECT_THAT([] { static_cast<void>(tie_groups({tie(0, 1), tie(1, 3), tie(3, 0)})); },
              ThrowsMessage<Error>(StartsWith("ties that go round in a circle: layer 0 weight, layer 1 weight, layer 3 "
                                              "weight; expected one owner that is nobody's copy")));
  EXPECT_THAT([] { static_cast<void>(tie_groups({tie(5, 2), tie(0, 2)})); },
              ThrowsMessage<Error>(
                  StartsWith("2 owners of what is tied together: layer 0 weight, layer 5 weight; expected one owner")));
}

TEST(TieGroups, ANetworkIsCheckedForThemAndForTheirLayers) {
  Network network;
  for (int layer = 0; layer < 3; ++layer)
    network.layers.push_back(layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(2, 2)));
  network.loss = squared_error;
  network.ties = {tie(0, 2)};
  check_network(network);
  network.ties = {tie(0, 3)};
  EXPECT_THAT([&] { check_network(network); },
              ThrowsMessage<Error>(StartsWith("a tie of layer 0 weight with layer 3 weight; expected layers 0 to 2")));
  network.ties = {tie(0, 2), tie(1, 2)};
  EXPECT_THROW(check_network(network), Error);
}

}  // namespace
}  // namespace penstock::ties_test
