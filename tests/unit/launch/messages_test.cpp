#include "launch/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::launching {
namespace {

using testing::ElementsAre;

TEST(Messages, LinesComeWholeHoweverTheyArrive) {
  std::vector<std::string> lines;
  const auto note = [&](const std::string& line) { lines.push_back(line); };
  LineReader reader;
  for (const char letter : std::string("one\n\ntwo\rthree\r\nfo")) reader.add({&letter, 1}, note);
  reader.add("ur\nfi", note);
  EXPECT_THAT(lines, ElementsAre("one", "two", "three", "four"));
  reader.finish(note);
  reader.finish(note);
  EXPECT_THAT(lines, ElementsAre("one", "two", "three", "four", "fi"));
}

TEST(Messages, ALineWithoutEndDoesNotFillTheMemory) {
  std::size_t lines = 0;
  std::size_t longest = 0;
  LineReader reader;
  reader.add(std::string(1'000'000, 'x'), [&](const std::string& line) {
    ++lines;
    longest = std::max(longest, line.size());
  });
  EXPECT_EQ(lines, 15U);
  EXPECT_EQ(longest, 65'536U);
}

TEST(Messages, KnowsTrouble) {
  for (const char* line : {"penstock: runs/a holds another run; expected …", "[W1124 10:00:00.1 socket.cpp:7] retrying",
                           "RuntimeError: x", "terminate called after throwing", "UserWarning: slow",
                           "Traceback (most recent call last):", "==7==ERROR: AddressSanitizer: heap-use-after-free"})
    EXPECT_TRUE(reports_failure(line)) << line;
  for (const char* line : {"step 7 loss 2.31", "[Warsaw]", "", "[", "rank 0 is connected to 3 peers"})
    EXPECT_FALSE(reports_failure(line)) << line;
}

TEST(Messages, TheSameRankMayRepeatItselfAndOthersMayNot) {
  std::vector<std::string> shown;
  MessageRelay relay(3, false, [&](const std::string& line) { shown.push_back(line); });
  relay.add(1, "error: a");
  relay.add(2, "error: a");
  relay.add(1, "error: a");
  relay.add(0, "error: b");
  relay.add(0, "plain");
  relay.add(2, "plain");
  EXPECT_THAT(shown, ElementsAre("rank 1: error: a", "rank 1: error: a", "rank 0: error: b", "plain"));
  EXPECT_EQ(relay.last_line(2), "error: a");
  relay.show_held(2);
  EXPECT_EQ(shown.back(), "rank 2: plain");
}

TEST(Messages, VerboseShowsAllOfAll) {
  std::vector<std::string> shown;
  MessageRelay relay(2, true, [&](const std::string& line) { shown.push_back(line); });
  relay.add(1, "plain");
  relay.add(0, "other");
  EXPECT_THAT(shown, ElementsAre("rank 1: plain", "rank 0: other"));
}

}  // namespace
}  // namespace penstock::launching
