// The threads of the ranks: who runs what, and which failure the caller hears of.
#include "pipeline/crew.h"

#include <atomic>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "penstock/base/error.h"
#include "penstock/transport/transport.h"

namespace penstock::crew_test {
namespace {

const auto nobody_stops = [](const std::string&) {};

std::string failure_of(Crew& crew, const Crew::Job& job) {
  std::string failure;
  try {
    crew.submit(job);
    crew.wait();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  crew.forget_failure();
  return failure;
}

TEST(Crew, EachRankKeepsAThreadOfItsOwn) {
  Crew crew(RankId{3}, 4, nobody_stops);
  std::mutex mutex;
  std::map<RankId, std::thread::id> first;
  for (int round = 0; round < 3; ++round) {
    crew.submit([&](RankId rank) {
      const std::scoped_lock lock(mutex);
      const auto [known, is_new] = first.emplace(rank, std::this_thread::get_id());
      EXPECT_EQ(known->second, std::this_thread::get_id());
      EXPECT_EQ(is_new, round == 0);
    });
    crew.wait();
  }
  ASSERT_EQ(first.size(), 4);
  EXPECT_EQ(first.begin()->first, RankId{3});
  std::set<std::thread::id> threads;
  for (const auto& [rank, thread] : first) threads.insert(thread);
  EXPECT_EQ(threads.size(), 4);
  EXPECT_FALSE(threads.contains(std::this_thread::get_id()));
}

TEST(Crew, AWaitEndsWhenAllRanksHaveEnded) {
  Crew crew(RankId{0}, 8, nobody_stops);
  std::atomic<int> ended = 0;
  for (int round = 1; round <= 100; ++round) {
    crew.submit([&](RankId) { ++ended; });
    crew.wait();
    EXPECT_EQ(ended, 8 * round);
  }
}

TEST(Crew, ARankBeginsItsNextJobWhileOthersAreAtTheLast) {
  Crew crew(RankId{0}, 2, nobody_stops);
  std::atomic<bool> second_begun = false;
  std::atomic<bool> saw_it = false;
  crew.submit([&](RankId rank) {
    if (rank.value == 1)
      while (!second_begun) std::this_thread::yield();
  });
  crew.submit([&](RankId rank) {
    if (rank.value == 0) second_begun = true;
    if (rank.value == 1) saw_it = second_begun.load();
  });
  crew.wait();
  EXPECT_TRUE(saw_it);
}

TEST(Crew, AWaitEndsEarlyWhenWhatItWaitsForIsThere) {
  Crew crew(RankId{0}, 2, nobody_stops);
  std::atomic<bool> may_end = false;
  bool there = false;
  crew.submit([&](RankId rank) {
    if (rank.value == 1) crew.change([&] { there = true; });
    while (!may_end) std::this_thread::yield();
  });
  crew.wait([&] { return there; });
  EXPECT_FALSE(may_end) << "nobody has ended";
  may_end = true;
  crew.wait();
}

TEST(Crew, WhatAJobHoldsIsFreedWhenAllHaveEndedIt) {
  Crew crew(RankId{0}, 3, nobody_stops);
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> seen = held;
  crew.submit([held = std::move(held)](RankId) { EXPECT_EQ(*held, 1); });
  crew.submit([](RankId) {});
  crew.wait();
  while (!seen.expired()) std::this_thread::yield();
}

TEST(Crew, AfterAFailureNoJobIsBegun) {
  std::atomic<bool> stopped = false;
  Crew crew(RankId{0}, 3, [&](const std::string&) { stopped = true; });
  std::atomic<int> begun = 0;
  crew.submit([&](RankId rank) {
    if (rank.value == 1) throw run_failed("the cause", "none", "see");
    while (!stopped) std::this_thread::yield();
    throw Aborted("a consequence");
  });
  for (int job = 0; job < 5; ++job) crew.submit([&](RankId) { ++begun; });
  for (int again = 0; again < 2; ++again) {
    try {
      crew.wait();
      ADD_FAILURE() << "the failure is told to everybody who waits";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "the cause; expected none; see");
    }
  }
  EXPECT_EQ(begun, 0);
}

// The others end with `Aborted` because of the first, perhaps before it has told what happened.
TEST(Crew, TheCauseIsThrownAndNotItsConsequences) {
  std::atomic<bool> stopped = false;
  Crew crew(RankId{0}, 4, [&](const std::string& told) {
    EXPECT_EQ(told, "the cause; expected none; see");
    stopped = true;
  });
  for (std::int32_t cause = 0; cause < 4; ++cause) {
    stopped = false;
    const std::string reason = failure_of(crew, [&](RankId rank) {
      if (rank.value == cause) throw run_failed("the cause", "none", "see");
      while (!stopped) std::this_thread::yield();
      throw Aborted("a consequence");
    });
    EXPECT_EQ(reason, "the cause; expected none; see");
  }
  EXPECT_EQ(failure_of(crew, [](RankId) { throw Aborted("only consequences here"); }), "only consequences here");
  EXPECT_EQ(failure_of(crew, [](RankId) {}), "");
}

TEST(Crew, WhatIsNoStandardExceptionIsNamedWithItsRank) {
  Crew crew(RankId{0}, 2, nobody_stops);
  const std::string reason = failure_of(crew, [](RankId rank) {
    if (rank.value == 1) throw 7;
  });
  EXPECT_TRUE(reason.starts_with("rank 1: something was thrown")) << reason;
}

}  // namespace
}  // namespace penstock::crew_test
