#include "pipeline/link_account.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

Event event(ActionKind kind, std::int32_t stage, std::int32_t microbatch, double start, double end) {
  return {{kind, {stage}, {microbatch}}, {start}, {end}};
}

// Two ranks, two microbatches: the first activation is waited for, the second has come before it is wanted.
struct TwoRanks {
  std::vector<Event> first{event(ActionKind::Forward, 0, 0, 0, 10), event(ActionKind::SendForward, 0, 0, 10, 11),
                           event(ActionKind::Forward, 0, 1, 11, 20), event(ActionKind::SendForward, 0, 1, 20, 21),
                           event(ActionKind::ReceiveBackward, 0, 0, 21, 50)};
  std::vector<Receipt> first_receipts = {{}, {}, {}, {}, {{1}, {40}, {50}}};
  std::vector<Event> second{event(ActionKind::ReceiveForward, 1, 0, 5, 15), event(ActionKind::Forward, 1, 0, 15, 32),
                            event(ActionKind::ReceiveForward, 1, 1, 32, 32), event(ActionKind::Backward, 1, 0, 32, 40),
                            event(ActionKind::SendBackward, 1, 0, 40, 41)};
  std::vector<Receipt> second_receipts = {{{0}, {100}, {15}}, {}, {{0}, {100}, {30}}, {}, {}};

  [[nodiscard]] std::vector<RankTraffic> traffic() const {
    return {{first, first_receipts}, {second, second_receipts}};
  }
};

TEST(LinkAccount, TellsTransfersFromTheWaitForThem) {
  LinkAccount account(2, 2, {{0}, {1}});
  account.add(TwoRanks().traffic());
  const std::vector<LinkUse> uses = account.uses();
  ASSERT_EQ(uses.size(), 2U);
  // 10 to 15 in the receive's sight, 20 to 30 behind a forward; the receive stood there from 5 on.
  const LinkUse forward{0, 1, true, {200}, 2, {10}, {15}, {10}};
  EXPECT_EQ(uses[0], forward);
  const LinkUse backward{1, 0, true, {40}, 1, {29}, {10}, {0}};
  EXPECT_EQ(uses[1], backward);
  EXPECT_DOUBLE_EQ(hidden_share(uses[0]), 10.0 / 15);
  EXPECT_EQ(hidden_share(uses[1]), 0);
  account.reset();
  EXPECT_TRUE(account.uses().empty());
}

TEST(LinkAccount, ClocksThatDisagreeMakeNoNegativeTransfer) {
  TwoRanks ranks;
  for (Event& late : ranks.second) late = {late.action, {late.start.count - 20}, {late.end.count - 20}};
  for (Receipt& late : ranks.second_receipts) late.arrived = late.arrived - Milliseconds{20};
  LinkAccount account(2, 2, {{0}});
  account.add(ranks.traffic());
  EXPECT_EQ(account.uses()[0].transfer, Milliseconds{0});
  EXPECT_EQ(account.uses()[0].hidden, Milliseconds{0});
  EXPECT_FALSE(account.uses()[0].between_processes);
}

}  // namespace
}  // namespace penstock
