#include "transport/c10d/first_abort.h"

#include <gtest/gtest.h>
#include <thread>

namespace penstock::first_abort_test {
namespace {

TEST(FirstAbort, TheFirstReasonStays) {
  FirstAbort abort;
  EXPECT_NO_THROW(abort.check());
  EXPECT_NO_THROW(abort.check_within({0}));
  EXPECT_TRUE(abort.keep("the first", /*peer_is_lost=*/true));
  EXPECT_FALSE(abort.keep("the second", /*peer_is_lost=*/false));
  EXPECT_TRUE(abort.is_there());
  try {
    abort.check();
    ADD_FAILURE() << "expected Aborted";
  } catch (const Aborted& aborted) {
    EXPECT_STREQ(aborted.what(), "the first");
    EXPECT_TRUE(aborted.peer_is_lost());
  }
}

TEST(FirstAbort, OneThatComesLaterEndsTheWaitForIt) {
  FirstAbort abort;
  constexpr Milliseconds hour{3'600'000};
  std::thread waits([&] { EXPECT_THROW(abort.check_within(hour), Aborted); });
  abort.keep("now", /*peer_is_lost=*/false);
  waits.join();
}

}  // namespace
}  // namespace penstock::first_abort_test
