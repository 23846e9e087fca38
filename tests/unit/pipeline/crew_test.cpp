// The threads of the ranks: who runs what, and which failure the caller hears of.
#include "pipeline/crew.h"

#include <atomic>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "penstock/base/error.h"
#include "penstock/transport/transport.h"

namespace penstock::crew_test {
namespace {

const auto nobody_stops = [](const std::string&) {};

std::string failure_of(Crew& crew, const std::function<void(RankId)>& work,
                       const std::function<void(const std::string&)>& on_failure = nobody_stops) {
  try {
    crew.run(work, on_failure);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(Crew, EachRankKeepsAThreadOfItsOwn) {
  Crew crew(RankId{3}, 4);
  std::mutex mutex;
  std::map<RankId, std::thread::id> first;
  for (int round = 0; round < 3; ++round)
    crew.run(
        [&](RankId rank) {
          const std::scoped_lock lock(mutex);
          const auto [known, is_new] = first.emplace(rank, std::this_thread::get_id());
          EXPECT_EQ(known->second, std::this_thread::get_id());
          EXPECT_EQ(is_new, round == 0);
        },
        nobody_stops);
  ASSERT_EQ(first.size(), 4);
  EXPECT_EQ(first.begin()->first, RankId{3});
  std::set<std::thread::id> threads;
  for (const auto& [rank, thread] : first) threads.insert(thread);
  EXPECT_EQ(threads.size(), 4);
  EXPECT_FALSE(threads.contains(std::this_thread::get_id()));
}

TEST(Crew, ARunEndsWhenAllRanksHaveEnded) {
  Crew crew(RankId{0}, 8);
  std::atomic<int> ended = 0;
  for (int round = 1; round <= 100; ++round) {
    crew.run([&](RankId) { ++ended; }, nobody_stops);
    EXPECT_EQ(ended, 8 * round);
  }
}

// The others end with `Aborted` because of the first, perhaps before it has told what happened.
TEST(Crew, TheCauseIsThrownAndNotItsConsequences) {
  Crew crew(RankId{0}, 4);
  for (std::int32_t cause = 0; cause < 4; ++cause) {
    std::atomic<bool> stopped = false;
    const std::string reason = failure_of(
        crew,
        [&](RankId rank) {
          if (rank.value == cause) throw run_failed("the cause", "none", "see");
          while (!stopped) std::this_thread::yield();
          throw Aborted("a consequence");
        },
        [&](const std::string& told) {
          EXPECT_EQ(told, "the cause; expected none; see");
          stopped = true;
        });
    EXPECT_EQ(reason, "the cause; expected none; see");
  }
  EXPECT_EQ(failure_of(crew, [](RankId) { throw Aborted("only consequences here"); }), "only consequences here");
  EXPECT_EQ(failure_of(crew, [](RankId) {}), "") << "a failure is told once";
}

TEST(Crew, WhatIsNoStandardExceptionIsNamedWithItsRank) {
  Crew crew(RankId{0}, 2);
  const std::string reason = failure_of(crew, [](RankId rank) {
    if (rank.value == 1) throw 7;
  });
  EXPECT_TRUE(reason.starts_with("rank 1: something was thrown")) << reason;
}

}  // namespace
}  // namespace penstock::crew_test
