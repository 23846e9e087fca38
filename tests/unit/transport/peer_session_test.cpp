// What one process learns of another and tells it, without sockets, threads or the machine's clock.
#include "transport/link/peer_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <optional>
#include <span>
#include <stdexcept>
#include <thread>

#include "penstock/base/error.h"

#include "unit/transport/fake_channel.h"

namespace penstock::peer_session_test {
namespace {

using testing::ElementsAre;

class PeerSessions : public testing::Test {
 protected:
  PeerSessions() {
    SessionObserver observer;
    observer.on_abort = [this](const std::string& reason, bool peer_is_lost) {
      told.push_back((peer_is_lost ? "lost one: " : "gave up: ") + reason);
    };
    observer.on_lost = [this](const std::string& reason) { told.push_back("lost: " + reason); };
    observer.on_failed = [this](const std::string& reason) { told.push_back("failed: " + reason); };
    observer.on_left = [this] { told.emplace_back("left"); };
    session.emplace(std::vector<Channel*>{&control_channel, &data_channel}, observer, clock);
  }

  bool comes(FrameKind kind, const std::string& text = "") {
    Incoming incoming;
    incoming.kind = kind;
    incoming.bytes = std::as_bytes(std::span(text));
    return session->take(incoming);
  }

  // A time that has come.
  static std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }

  StandingClock clock;
  FakeWire control;
  FakeWire data;
  FakeChannel control_channel{control};
  FakeChannel data_channel{data};
  std::vector<std::string> told;
  std::optional<PeerSession> session;
};

TEST_F(PeerSessions, AnAbortIsToldWithItsReasonAndMoreMayCome) {
  EXPECT_TRUE(comes(FrameKind::Abort, "rank 3 ran out of memory"));
  EXPECT_TRUE(comes(FrameKind::Lost, "process 2 is gone"));
  EXPECT_THAT(told, ElementsAre("gave up: rank 3 ran out of memory", "lost one: process 2 is gone"));
  EXPECT_FALSE(control.stopped) << "what this process has to say still goes";
}

TEST_F(PeerSessions, AnAbortGoesBeforeWhatWaitsButNotIntoAMessageThatHasBegun) {
  Outgoing begun;
  begun.frame.kind = FrameKind::Continuation;
  Outgoing message;
  message.frame.kind = FrameKind::Message;
  control.waiting.push_back(begun);
  control.waiting.push_back(message);
  session->send_abort("enough", /*peer_is_lost=*/false);
  EXPECT_THAT(control.kinds(), ElementsAre(FrameKind::Continuation, FrameKind::Abort, FrameKind::Message));
  EXPECT_EQ(control.waiting.at(1).reason, "enough");
  session->send_abort("process 2 is gone", /*peer_is_lost=*/true);
  EXPECT_EQ(control.kinds().at(1), FrameKind::Lost);
  EXPECT_TRUE(data.waiting.empty());
}

TEST_F(PeerSessions, AReasonOfAnyLengthFitsItsFrame) {
  session->send_abort(std::string(10 * largest_frame_bytes, 'x'), /*peer_is_lost=*/false);
  MessageWriter writer(7);
  const Frames frames = taken_frames(control, writer);
  ASSERT_EQ(frames.size(), 1U);
  FrameReader reader({7, 0, 1, 1, 2});
  EXPECT_EQ(reader.read(frames.front()).bytes.size(), largest_frame_bytes / 2);
}

TEST_F(PeerSessions, OneThatSaysNothingForTooLongIsLostOnce) {
  session->check_heard({500});
  clock.advance({500});
  session->check_heard({500});
  EXPECT_TRUE(told.empty());
  session->heard();
  clock.advance({501});
  session->check_heard({500});
  session->check_heard({500});
  EXPECT_THAT(told, ElementsAre("lost: it has said nothing for 0.5 s"));
}

TEST_F(PeerSessions, AHeartbeatIsOnlyForThoseWhoHaveSaidNothingElse) {
  session->heartbeat();
  EXPECT_THAT(control.kinds(), ElementsAre(FrameKind::Heartbeat));
  // A frame since the last time.
  control.counts.frames = 1;
  session->heartbeat();
  EXPECT_EQ(control.waiting.size(), 1U);
  // None, but one waits for its turn.
  control.counts.waits = true;
  session->heartbeat();
  EXPECT_EQ(control.waiting.size(), 1U);
  control.counts.waits = false;
  session->heartbeat();
  EXPECT_EQ(control.waiting.size(), 2U);
  EXPECT_TRUE(data.waiting.empty());
}

TEST_F(PeerSessions, ALossStopsEveryChannelAndDropsWhatWaits) {
  data.waiting.emplace_back();
  session->channel_ended(std::make_exception_ptr(ConnectionClosed()));
  EXPECT_THAT(told, ElementsAre("lost: its connection is closed"));
  EXPECT_TRUE(control.stopped && data.stopped);
  EXPECT_TRUE(data.waiting.empty());
  session->send_abort("too late", /*peer_is_lost=*/false);
  EXPECT_TRUE(control.waiting.empty());
  // Nobody waits for the goodbye of one that is lost.
  session->wait_for_goodbye(now() + std::chrono::hours(1));
}

TEST_F(PeerSessions, WhoseFaultAnEndIsFollowsFromWhatWasThrown) {
  const std::vector<std::pair<std::exception_ptr, std::string>> ends{
      {std::make_exception_ptr(run_failed("a message with flags", "none", "start again")),
       "lost: a message with flags; expected none; start again"},
      {std::make_exception_ptr(std::runtime_error("no memory")), "failed: no memory"},
      {std::make_exception_ptr(7), "failed: an unknown exception"}};
  for (const auto& [why, expected] : ends) {
    SessionObserver observer;
    std::string said;
    observer.on_lost = [&](const std::string& reason) { said = "lost: " + reason; };
    observer.on_failed = [&](const std::string& reason) { said = "failed: " + reason; };
    PeerSession other({&control_channel}, observer, clock);
    other.channel_ended(why);
    EXPECT_EQ(said, expected);
    // The first end is the one that counts.
    said.clear();
    other.channel_ended(std::make_exception_ptr(ConnectionClosed()));
    EXPECT_EQ(said, "");
  }
}

TEST_F(PeerSessions, AfterItsGoodbyeAClosedConnectionIsNoLoss) {
  EXPECT_FALSE(comes(FrameKind::Goodbye)) << "nothing more comes";
  session->channel_ended(std::make_exception_ptr(ConnectionClosed()));
  clock.advance({1e9});
  session->check_heard({500});
  EXPECT_TRUE(told.empty());
  EXPECT_FALSE(control.stopped) << "this process's own goodbye still goes";
}

TEST_F(PeerSessions, WhoGoesOnLongAfterTheOthersGoodbyeHearsOfItOnce) {
  session->check_left({500});
  comes(FrameKind::Goodbye);
  clock.advance({500});
  session->check_left({500});
  EXPECT_TRUE(told.empty()) << "this process may be about to end too";
  clock.advance({1});
  session->check_left({500});
  session->check_left({500});
  EXPECT_THAT(told, ElementsAre("left"));
  EXPECT_FALSE(control.stopped) << "this process's own goodbye still goes";
}

TEST_F(PeerSessions, GoodbyeIsSaidBehindAllElseAndWaitedForOnBothSides) {
  control.waiting.emplace_back();
  session->say_goodbye();
  EXPECT_THAT(control.kinds(), ElementsAre(FrameKind::Heartbeat, FrameKind::Goodbye));
  // The other has not said it: the time is over.
  session->wait_for_goodbye(now());
  EXPECT_EQ(control.waits_until_sent + data.waits_until_sent, 0);
  comes(FrameKind::Goodbye);
  session->wait_for_goodbye(now() + std::chrono::hours(1));
  EXPECT_EQ(control.waits_until_sent, 1);
  EXPECT_EQ(data.waits_until_sent, 1);
}

TEST_F(PeerSessions, AGoodbyeThatComesLaterEndsTheWait) {
  std::thread waits([this] { session->wait_for_goodbye(now() + std::chrono::hours(1)); });
  comes(FrameKind::Goodbye);
  waits.join();
  EXPECT_EQ(control.waits_until_sent, 1);
}

TEST_F(PeerSessions, OneThatThisProcessHasClosedReportsNoEnd) {
  session->close();
  session->channel_ended(std::make_exception_ptr(ConnectionClosed()));
  session->channel_ended(std::make_exception_ptr(std::runtime_error("cut off")));
  EXPECT_TRUE(told.empty());
}

}  // namespace
}  // namespace penstock::peer_session_test
