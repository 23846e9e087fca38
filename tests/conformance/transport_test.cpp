#include "penstock/transport/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include <ATen/ATen.h>

#include "penstock/base/types.h"

#include "conformance/conformance.h"

namespace penstock::conformance {
namespace {

// What a send of rank 0 to rank 3 says against `message`.
std::string refusal(Transport& end, const std::vector<at::Tensor>& message) {
  try {
    end.send({3}, {kind_a, 1, 0}, message);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_THAT(error.what(), testing::Not(testing::HasSubstr("\n")));
    return error.what();
  }
  return "sent";
}

TEST_P(Conformance, MessagesAreFoundByTheirTagInAnyOrder) {
  const Ends ends = make(2);
  constexpr std::int32_t count = 100;
  run(ends, [](Transport& end) {
    for (std::int32_t index = 0; index < count; ++index) {
      if (end.rank() == RankId{0}) {
        end.send({1}, tag_a(index), {at::full({3}, index), at::full({1}, -index)});
      } else {
        const std::int32_t backwards = count - 1 - index;
        const auto message = end.receive({0}, tag_a(backwards));
        ASSERT_EQ(message.size(), 2U);
        EXPECT_EQ(message[0].sum().item<double>(), 3.0 * backwards);
        EXPECT_EQ(message[1].item<double>(), -1.0 * backwards);
      }
    }
  });
}

TEST_P(Conformance, MessagesOfOneTagKeepTheirOrder) {
  const Ends ends = make(2);
  for (int index = 0; index < 5; ++index) ends[0]->send({1}, tag_a(0), {at::full({1}, index)});
  for (int index = 0; index < 5; ++index) EXPECT_EQ(ends[1]->receive({0}, tag_a(0)).front().item<int>(), index);
}

TEST_P(Conformance, KindsAndSendersAreKeptApart) {
  const Ends ends = make(3);
  ends[0]->send({2}, {kind_a, 1, 0}, {at::full({1}, 1)});
  ends[0]->send({2}, {kind_b, 1, 0}, {at::full({1}, 2)});
  ends[1]->send({2}, {kind_a, 1, 0}, {at::full({1}, 3)});
  EXPECT_EQ(ends[2]->receive({1}, {kind_a, 1, 0}).front().item<int>(), 3);
  EXPECT_EQ(ends[2]->receive({0}, {kind_b, 1, 0}).front().item<int>(), 2);
  EXPECT_EQ(ends[2]->receive({0}, {kind_a, 1, 0}).front().item<int>(), 1);
}

TEST_P(Conformance, UndefinedTensorsArrive) {
  const Ends ends = make(2);
  ends[0]->send({1}, tag_a(0), {at::Tensor(), at::ones({1})});
  const auto message = ends[1]->receive({0}, tag_a(0));
  EXPECT_FALSE(message.at(0).defined());
  EXPECT_TRUE(message.at(1).defined());
}

TEST_P(Conformance, WhatHasArrivedCanBeAskedForWithoutWaiting) {
  const Ends ends = make(2);
  EXPECT_FALSE(ends[1]->has_arrived({0}, tag_a(0)));
  ends[0]->send({1}, tag_a(1), {at::ones({1})});
  ends[0]->send({1}, tag_a(0), {at::ones({1})});
  // Messages of two tags arrive in the order in which they were sent, or earlier.
  static_cast<void>(ends[1]->receive({0}, tag_a(0)));
  EXPECT_TRUE(ends[1]->has_arrived({0}, tag_a(1)));
  EXPECT_FALSE(ends[1]->has_arrived({0}, tag_a(0)));
  static_cast<void>(ends[1]->receive({0}, tag_a(1)));
  EXPECT_FALSE(ends[1]->has_arrived({0}, tag_a(1)));
  ends[0]->abort("rank 0 gave up");
  EXPECT_THROW(static_cast<void>(ends[0]->has_arrived({1}, tag_a(0))), Aborted);
}

TEST_P(Conformance, WhetherATensorRequiresItsGradientArrives) {
  const Ends ends = make(2);
  for (const bool requires_gradient : {true, false, true}) {
    ends[0]->send({1}, tag_a(0), {at::ones({3}).requires_grad_(requires_gradient), at::ones({2})});
    const auto got = ends[1]->receive({0}, tag_a(0));
    EXPECT_EQ(got[0].requires_grad(), requires_gradient);
    EXPECT_FALSE(got[1].requires_grad());
  }
}

// Threads hand over references, and so all that there is. What a link refuses it refuses at once, and goes on.
TEST_P(Conformance, WhatIsRefusedIsHeardOfByEveryRankAtOnceAndNothingOfItIsSent) {
  const std::vector<std::pair<std::string, std::vector<at::Tensor>>> refused{
      {"Sparse", {at::ones({3}), at::eye(3).to_sparse()}},
      {"QInt8", {at::ones({4}), at::_empty_affine_quantized({3}, at::kQInt8, 0.1, 0)}},
      {"meta", {at::ones({5}), at::empty({3}, at::kMeta)}},
      {"65 dimensions", {at::ones({6}), at::ones({1}).expand(std::vector<std::int64_t>(65, 1))}},
      {"Bits8", {at::ones({7}), at::empty({3}, at::ScalarType::Bits8)}},
      {"65536 tensors", std::vector<at::Tensor>(65'536)}};
  const Ends ends = make(4);
  if (!between_processes()) return;
  // The first of its channel, and one whose layouts the other knows.
  for (int round = 0; round < 2; ++round) {
    for (const auto& [name, message] : refused) EXPECT_THAT(refusal(*ends[0], message), testing::HasSubstr(name));
    ends[0]->send({3}, tag_a(round), {at::full({2}, round)});
    EXPECT_TRUE(at::equal(ends[3]->receive({0}, tag_a(round)).at(0), at::full({2}, round)));
  }
  run(ends, [&](Transport& end) {
    try {
      if (end.rank() == RankId{0}) {
        end.send({3}, tag_a(9), refused.front().second);
      } else {
        static_cast<void>(end.receive({0}, tag_a(9)));
      }
      ADD_FAILURE() << "expected an error";
    } catch (const Aborted& aborted) {
      EXPECT_THAT(aborted.what(), testing::HasSubstr("a tensor of the layout Sparse"));
      EXPECT_FALSE(aborted.peer_is_lost());
    } catch (const Error& error) {
      EXPECT_EQ(end.rank(), RankId{0});
      end.abort(error.what());
    }
  });
}

TEST_P(Conformance, MoreThanIsTakenAtOnceIsKept) {
  const Ends ends = make(2);
  constexpr std::int32_t count = 64;
  constexpr std::int64_t size = 100'000;
  // Nobody receives yet, and no send waits.
  for (std::int32_t index = 0; index < count; ++index) {
    ends[0]->send({1}, tag_a(index), {at::full({size}, index)});
    ends[1]->send({0}, tag_a(index), {at::full({size}, -index)});
  }
  for (std::int32_t index = count - 1; index >= 0; --index) {
    EXPECT_TRUE(at::equal(ends[1]->receive({0}, tag_a(index)).front(), at::full({size}, index)));
    EXPECT_TRUE(at::equal(ends[0]->receive({1}, tag_a(index)).front(), at::full({size}, -index)));
  }
}

TEST_P(Conformance, AnAbortEndsEveryWaitAndLaterSendsWithTheFirstReason) {
  const Ends ends = make(4);
  run(ends, [](Transport& end) {
    if (end.rank() == RankId{3}) {
      end.abort("rank 3 gave up");
      end.abort("and again");
      EXPECT_THROW(end.send({0}, tag_a(8), {at::ones({1})}), Aborted);
      return;
    }
    try {
      static_cast<void>(end.receive({3}, tag_a(7)));
      ADD_FAILURE() << "expected Aborted";
    } catch (const Aborted& aborted) {
      EXPECT_STREQ(aborted.what(), "rank 3 gave up");
    }
  });
}

TEST_P(Conformance, AllGatherGivesEveryRankTheSame) {
  const Ends ends = make(5);
  for (int round = 0; round < 3; ++round) {
    run(ends, [](Transport& end) {
      const std::vector<double> mine(static_cast<std::size_t>(end.rank().value), end.rank().value + 0.5);
      const auto all = all_gather(end, mine);
      ASSERT_EQ(all.size(), 5U);
      for (std::size_t rank = 0; rank < 5; ++rank)
        EXPECT_EQ(all[rank], std::vector<double>(rank, static_cast<double>(rank) + 0.5));
    });
  }
}

TEST_P(Conformance, SaysWhenAMessageCame) {
  const Ends ends = make(2);
  const SteadyClock clock;
  run(ends, [&](Transport& end) {
    const RankId other{1 - end.rank().value};
    end.send(other, tag_a(0), {at::ones({1})});
    end.send(other, tag_a(1), {at::ones({1})});
    static_cast<void>(end.receive(other, tag_a(1)));
    const Milliseconds second = end.last_arrival();
    EXPECT_LE(second, clock.now());
    // It came before the one that was sent after it, and was asked for later.
    static_cast<void>(end.receive(other, tag_a(0)));
    EXPECT_LE(end.last_arrival(), second);
    EXPECT_GT(end.last_arrival().count, 0);
  });
}

TEST_P(Conformance, AReceiverThatIsNowEarlyAndNowLateGetsEverything) {
  const Ends ends = make(2);
  run(ends, [](Transport& end) {
    const RankId other{1 - end.rank().value};
    for (std::int32_t index = 0; index < 100; ++index) {
      // Up to several times what any thread of a transport leaves to another.
      const std::int32_t late = (index * 7 + end.rank().value * 5) % 11;
      if (late > 5) std::this_thread::sleep_for(std::chrono::microseconds(500 * (late - 5)));
      end.send(other, tag_a(index), {at::full({3}, index)});
      if (late % 3 == 1) static_cast<void>(end.has_arrived(other, tag_a(index)));
      ASSERT_TRUE(at::equal(end.receive(other, tag_a(index)).front(), at::full({3}, index)));
    }
  });
}

TEST_P(Conformance, AllRanksTalkAtOnce) {
  const Ends ends = make(8);
  run(ends, [](Transport& end) {
    for (std::int32_t index = 0; index < 200; ++index) {
      for (std::int32_t to = 0; to < 8; ++to)
        if (to != end.rank().value) end.send({to}, tag_a(index), {at::full({1}, end.rank().value)});
      for (std::int32_t from = 0; from < 8; ++from) {
        if (from == end.rank().value) continue;
        ASSERT_EQ(end.receive({from}, tag_a(index)).front().item<int>(), from);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Transports, Conformance,
    testing::Values(
        std::pair<const char*, Factory>{"inproc", [](int ranks) { return make_inproc_transport(ranks); }},
        std::pair<const char*, Factory>{"inproc_spinning",
                                        [](int ranks) { return make_inproc_transport(ranks, {200}); }},
        std::pair<const char*, Factory>{"c10d", [](int ranks) { return make_processes(ranks, 1, false); }},
        std::pair<const char*, Factory>{"c10d_mixed", [](int ranks) { return make_processes(ranks, 2, false); }},
        std::pair<const char*, Factory>{"shared_memory", [](int ranks) { return make_processes(ranks, 1, true); }},
        std::pair<const char*, Factory>{"direct",
                                        [](int ranks) { return make_processes(ranks, 1, false, Devices::StandIns); }},
        std::pair<const char*, Factory>{"direct_mixed",
                                        [](int ranks) { return make_processes(ranks, 2, true, Devices::StandIns); }}),
    [](const auto& instance) { return instance.param.first; });

}  // namespace
}  // namespace penstock::conformance
