#include <algorithm>
#include <gtest/gtest.h>
#include <limits>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/schedule/generators.h"
#include "penstock/schedule/routes.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

std::string lowered(const char* text) { return to_csv(lower(verify(parse_schedule(text))).get()); }

TEST(Lower, ReceivesStandBeforeAndSendsBehindTheirActions) {
  EXPECT_EQ(lowered("0F0,0B0\n1F0,1B0\n2F0,2B0\n"),
            "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1SEND_F0,1RECV_B0,1B0,1SEND_B0\n2RECV_F0,2F0,2B0,2SEND_B0\n");
}

TEST(Lower, AnInputGradientIsSentBeforeTheWeightGradientIsComputed) {
  EXPECT_EQ(lowered("0F0,0I0,0W0\n1F0,1I0,1W0\n"), "0F0,0SEND_F0,0RECV_B0,0I0,0W0\n1RECV_F0,1F0,1I0,1SEND_B0,1W0\n");
}

TEST(Lower, ReceivesArePostedAsEarlyAsTheirNumberPermits) {
  const VerifiedSchedule compute = verify(parse_schedule("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"));
  const auto posted = [&](int receives) { return to_csv(lower(compute, {.posted_receives = receives}).get()); };
  EXPECT_EQ(
      posted(0),
      "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\n");
  EXPECT_EQ(
      posted(1),
      "0RECV_B0,0F0,0SEND_F0,0F1,0SEND_F1,0B0,0RECV_B1,0B1\n1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
  EXPECT_EQ(
      posted(2),
      "0RECV_B0,0RECV_B1,0F0,0SEND_F0,0F1,0SEND_F1,0B0,0B1\n1RECV_F0,1RECV_F1,1F0,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
  EXPECT_THROW(static_cast<void>(posted(-1)), Error);
  // Nothing waits in a receive, so early ones hold nobody up; in a rendezvous they would.
  EXPECT_NO_THROW(static_cast<void>(verify(parse_schedule(posted(2)))));
  EXPECT_THROW(static_cast<void>(verify(parse_schedule(posted(2)), {.sends = SendMode::Blocking})), Error);
}

TEST(Lower, PostedReceivesNeverExceedTheirNumberByMoreThanAPairNeeds) {
  for (const ScheduleFamily& family : schedule_families()) {
    for (const int most : {1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << family.name << ", " << most << " posted");
      const VerifiedSchedule lowered = lower(verify(make_schedule(family.name, 4, 7)), {.posted_receives = most});
      for (const auto& row : lowered->actions) {
        std::vector<Action> outstanding;
        for (const Action& action : row) {
          if (is_communication(action.kind) && !is_send(action.kind)) outstanding.push_back(action);
          EXPECT_LE(outstanding.size(), static_cast<std::size_t>(std::max(most, 2)));
          if (is_compute(action.kind))
            std::erase_if(outstanding, [&](const Action& receive) {
              return receive.stage == action.stage && receive.microbatch == action.microbatch &&
                     (receive.kind == ActionKind::ReceiveForward) == (action.kind == ActionKind::Forward);
            });
        }
        EXPECT_TRUE(outstanding.empty());
      }
    }
  }
}

// So many that work for each pair of them would never end.
TEST(Lower, AllReceivesArePostedFirstWhereTheirNumberPermits) {
  constexpr int microbatches = 300'000;
  const VerifiedSchedule lowered =
      lower(verify(one_f_one_b_schedule(2, microbatches)), {.posted_receives = std::numeric_limits<int>::max()});
  for (const auto& row : lowered->actions) {
    const auto is_receive = [](const Action& action) { return is_communication(action.kind) && !is_send(action.kind); };
    ASSERT_EQ(std::count_if(row.begin(), row.end(), is_receive), microbatches);
    for (std::size_t microbatch = 0; microbatch < microbatches; ++microbatch)
      ASSERT_TRUE(is_receive(row[microbatch]) && row[microbatch].microbatch.index() == microbatch) << microbatch;
  }
}

TEST(Lower, ABoundaryWithinARankMovesNothing) {
  EXPECT_EQ(lowered("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n"),
            "0F0,0SEND_F0,3RECV_F0,3F0,3B0,3SEND_B0,0RECV_B0,0B0\n"
            "1RECV_F0,1F0,2F0,2SEND_F0,2RECV_B0,2B0,1B0,1SEND_B0\n");
}

TEST(Lower, WithTwoHoldersEachMicrobatchTakesItsOwnWay) {
  const Schedule both = parse_schedule("0F0,1F1,1B1,0B0\n0F1,1F0,1B0,0B1\n");
  EXPECT_EQ(
      to_csv(lower(verify(both)).get()),
      "0F0,0SEND_F0,1RECV_F1,1F1,1B1,1SEND_B1,0RECV_B0,0B0\n0F1,0SEND_F1,1RECV_F0,1F0,1B0,1SEND_B0,0RECV_B1,0B1\n");
  EXPECT_EQ(Routes(both).rank_of({1}, {0}), RankId{1});
  EXPECT_EQ(Routes(both).rank_of({1}, {1}), RankId{0});
}

TEST(Lower, APairReceivesBeforeAndSendsAfterBoth) {
  EXPECT_EQ(lowered("0F0,0F1,0B0,0B1\n1F0,(1F1;1B0)OVERLAP_F_B,1B1\n"),
            "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
            "1RECV_F0,1F0,1RECV_F1,(1F1;1B0)OVERLAP_F_B,1SEND_B0,1B1,1SEND_B1\n");
}

TEST(Lower, WhatWasSentEarlierIsReceivedEarlier) {
  // Rank 0 sends 0F1 before 2F0, and rank 1 uses 2F0's output first.
  EXPECT_EQ(lowered("0F0,0F1,2F0,2B0,2F1,2B1,0B0,0B1\n1F0,3F0,3B0,1F1,3F1,3B1,1B0,1B1\n"),
            "0F0,0SEND_F0,0F1,0SEND_F1,2RECV_F0,2F0,2SEND_F0,2RECV_B0,2B0,2SEND_B0,2RECV_F1,2F1,2SEND_F1,2RECV_B1,2B1,"
            "2SEND_B1,0RECV_B0,0B0,0RECV_B1,0B1\n"
            "1RECV_F0,1F0,1SEND_F0,1RECV_F1,3RECV_F0,3F0,3B0,3SEND_B0,1F1,1SEND_F1,1RECV_B0,3RECV_F1,3F1,3B1,3SEND_B1,"
            "1B0,1SEND_B0,1RECV_B1,1B1,1SEND_B1\n");
}

using Message = std::tuple<bool, std::int32_t, std::int32_t>;  // forward, the receiving stage, microbatch
using Channels = std::map<std::pair<std::int32_t, std::int32_t>, std::vector<Message>>;  // by sender and receiver

void add_message(const Routes& routes, std::int32_t rank, const Action& action, Channels& sends, Channels& receives) {
  if (!is_communication(action.kind)) return;
  const bool forward = action.kind == ActionKind::SendForward || action.kind == ActionKind::ReceiveForward;
  const bool sent = is_send(action.kind);
  const StageId other{action.stage.value + (forward == sent ? 1 : -1)};
  const std::int32_t peer = routes.rank_of(other, action.microbatch).value;
  const Message message{forward, sent ? other.value : action.stage.value, action.microbatch.value};
  if (sent)
    sends[{rank, peer}].push_back(message);
  else
    receives[{peer, rank}].push_back(message);
}

TEST(Lower, EveryRankReceivesInTheOrderOfTheSends) {
  for (const ScheduleFamily& family : schedule_families()) {
    for (const int p : {2, 4, 6})
      for (const int m : {1, p, 2 * p + 3}) {
        SCOPED_TRACE(testing::Message() << family.name << " p=" << p << " m=" << m);
        // Receives that are posted ahead must keep the order too: none, two or three of them here.
        const Schedule schedule =
            lower(verify(make_schedule(family.name, p, m)), {.posted_receives = m == 1 ? 0 : m % 4}).get();
        const Routes routes(schedule);
        Channels sends;
        Channels receives;
        for (std::int32_t rank = 0; rank < p; ++rank)
          for (const Action& action : schedule.actions[static_cast<std::size_t>(rank)])
            add_message(routes, rank, action, sends, receives);
        EXPECT_EQ(sends, receives);
      }
  }
}

TEST(Lower, KeepsWhatRunsAndNothingElse) {
  EXPECT_EQ(lowered("0UNSHARD,0F0,,0B0,0REDUCE_GRAD,0RESHARD\n"), "0F0,0B0\n");
  const VerifiedSchedule once = lower(verify(one_f_one_b_schedule(3, 5)));
  EXPECT_EQ(lower(once).get(), once.get());
}

TEST(Lower, ForwardsAlone) { EXPECT_EQ(lowered("0F0\n1F0\n"), "0F0,0SEND_F0\n1RECV_F0,1F0\n"); }

}  // namespace
}  // namespace penstock
