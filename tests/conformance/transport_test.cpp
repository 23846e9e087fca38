#include "penstock/transport/transport.h"

#include <functional>
#include <gtest/gtest.h>
#include <thread>

#include <ATen/ATen.h>

namespace penstock {
namespace {

using Ends = std::vector<std::unique_ptr<Transport>>;
using Factory = std::function<Ends(int)>;

class Conformance : public testing::TestWithParam<std::pair<const char*, Factory>> {
 protected:
  // Runs `work` for every rank on a thread of its own.
  static void run(const Ends& ends, const std::function<void(Transport&)>& work) {
    std::vector<std::thread> threads;
    threads.reserve(ends.size());
    for (const auto& end : ends) threads.emplace_back([&work, &end] { work(*end); });
    for (std::thread& thread : threads) thread.join();
  }
  [[nodiscard]] static Ends make(int ranks) { return GetParam().second(ranks); }
};

Tag activation(std::int32_t microbatch) { return {MessageKind::Activation, 1, microbatch}; }

TEST_P(Conformance, MessagesAreFoundByTheirTagInAnyOrder) {
  const Ends ends = make(2);
  constexpr std::int32_t count = 100;
  run(ends, [](Transport& end) {
    for (std::int32_t index = 0; index < count; ++index) {
      if (end.rank() == RankId{0}) {
        end.send({1}, activation(index), {at::full({3}, index), at::full({1}, -index)});
      } else {
        const std::int32_t backwards = count - 1 - index;
        const auto message = end.receive({0}, activation(backwards));
        ASSERT_EQ(message.size(), 2U);
        EXPECT_EQ(message[0].sum().item<double>(), 3.0 * backwards);
        EXPECT_EQ(message[1].item<double>(), -1.0 * backwards);
      }
    }
  });
}

TEST_P(Conformance, MessagesOfOneTagKeepTheirOrder) {
  const Ends ends = make(2);
  for (int index = 0; index < 5; ++index) ends[0]->send({1}, activation(0), {at::full({1}, index)});
  for (int index = 0; index < 5; ++index) EXPECT_EQ(ends[1]->receive({0}, activation(0)).front().item<int>(), index);
}

TEST_P(Conformance, KindsAndSendersAreKeptApart) {
  const Ends ends = make(3);
  ends[0]->send({2}, {MessageKind::Activation, 1, 0}, {at::full({1}, 1)});
  ends[0]->send({2}, {MessageKind::Gradient, 1, 0}, {at::full({1}, 2)});
  ends[1]->send({2}, {MessageKind::Activation, 1, 0}, {at::full({1}, 3)});
  EXPECT_EQ(ends[2]->receive({1}, {MessageKind::Activation, 1, 0}).front().item<int>(), 3);
  EXPECT_EQ(ends[2]->receive({0}, {MessageKind::Gradient, 1, 0}).front().item<int>(), 2);
  EXPECT_EQ(ends[2]->receive({0}, {MessageKind::Activation, 1, 0}).front().item<int>(), 1);
}

TEST_P(Conformance, UndefinedTensorsArrive) {
  const Ends ends = make(2);
  ends[0]->send({1}, activation(0), {at::Tensor(), at::ones({1})});
  const auto message = ends[1]->receive({0}, activation(0));
  EXPECT_FALSE(message.at(0).defined());
  EXPECT_TRUE(message.at(1).defined());
}

TEST_P(Conformance, AnAbortEndsEveryWaitAndLaterSendsWithTheFirstReason) {
  const Ends ends = make(4);
  run(ends, [](Transport& end) {
    if (end.rank() == RankId{3}) {
      end.abort("rank 3 gave up");
      end.abort("and again");
      EXPECT_THROW(end.send({0}, activation(8), {at::ones({1})}), Aborted);
      return;
    }
    try {
      static_cast<void>(end.receive({3}, activation(7)));
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

TEST_P(Conformance, AllRanksTalkAtOnce) {
  const Ends ends = make(8);
  run(ends, [](Transport& end) {
    for (std::int32_t index = 0; index < 200; ++index) {
      for (std::int32_t to = 0; to < 8; ++to)
        if (to != end.rank().value) end.send({to}, activation(index), {at::full({1}, end.rank().value)});
      for (std::int32_t from = 0; from < 8; ++from) {
        if (from == end.rank().value) continue;
        ASSERT_EQ(end.receive({from}, activation(index)).front().item<int>(), from);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Transports, Conformance,
    testing::Values(std::pair<const char*, Factory>{"inproc", [](int ranks) { return make_inproc_transport(ranks); }},
                    std::pair<const char*, Factory>{"inproc_spinning",
                                                    [](int ranks) { return make_inproc_transport(ranks, {200}); }}),
    [](const auto& instance) { return instance.param.first; });

}  // namespace
}  // namespace penstock
