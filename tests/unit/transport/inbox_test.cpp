// Where messages wait for the rank that they are for.
#include "transport/inbox.h"

#include <gtest/gtest.h>
#include <thread>

#include <ATen/ATen.h>

namespace penstock::inbox_test {
namespace {

SenderAndTag from(std::int32_t rank, std::int32_t channel = 0) { return {RankId{rank}, {MessageKind{0}, channel, 0}}; }

MessageTensors message(double value) { return {at::scalar_tensor(value, at::kDouble)}; }
double value_of(const ArrivedMessage& arrived) { return arrived.tensors.at(0).item<double>(); }

TEST(Inbox, MessagesOfOneTagComeInTheirOrderAndOthersDoNotMatter) {
  Inbox inbox;
  inbox.put(from(1), message(1));
  inbox.put(from(2), message(20));
  inbox.put(from(1), message(2));
  inbox.put(from(1, 7), message(70));
  EXPECT_TRUE(inbox.has(from(1, 7)));
  EXPECT_FALSE(inbox.has(from(3)));
  EXPECT_EQ(value_of(inbox.take(from(1, 7), 0)), 70);
  EXPECT_EQ(value_of(inbox.take(from(1), 0)), 1);
  EXPECT_EQ(value_of(inbox.take(from(1), 0)), 2);
  EXPECT_EQ(value_of(inbox.take(from(2), 0)), 20);
  EXPECT_FALSE(inbox.has(from(1)));
}

TEST(Inbox, ATakeWaitsForItsMessageWhetherItSpinsOrSleeps) {
  for (const double spin_us : {0.0, 1e6}) {
    Inbox inbox;
    std::thread taker([&] { EXPECT_EQ(value_of(inbox.take(from(1), spin_us)), 5); });
    inbox.put(from(2), message(4));
    inbox.put(from(1), message(5));
    taker.join();
  }
}

TEST(Inbox, AnAbortEndsEveryWaitAndTheFirstReasonStays) {
  Inbox inbox;
  inbox.put(from(1), message(1));
  std::thread taker([&] {
    try {
      static_cast<void>(inbox.take(from(2), 0));
      ADD_FAILURE() << "nothing was sent";
    } catch (const Aborted& aborted) {
      EXPECT_STREQ(aborted.what(), "the first");
      EXPECT_TRUE(aborted.peer_is_lost());
    }
  });
  inbox.abort("the first", /*peer_is_lost=*/true);
  inbox.abort("the second");
  taker.join();
  EXPECT_TRUE(inbox.has_or_aborted(from(9)));
  EXPECT_THROW(static_cast<void>(inbox.take(from(1), 0)), Aborted) << "what is there is not given out any more";
  EXPECT_THROW(static_cast<void>(inbox.has(from(1))), Aborted);
  EXPECT_THROW(inbox.put(from(1), message(1)), Aborted);
}

}  // namespace
}  // namespace penstock::inbox_test
