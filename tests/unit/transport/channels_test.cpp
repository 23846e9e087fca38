// What every channel must do: that over a process group, here a fake one, and that through shared memory.
#include <array>
#include <condition_variable>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mutex>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>

#include "transport/gloo/gloo_channel.h"
#include "transport/link/channel.h"
#include "transport/shared_memory/shared_memory_channel.h"
#include "unit/transport/fake_group.h"

namespace penstock::channels_test {
namespace {

using testing::ElementsAre;

constexpr std::uint64_t identity = 7;

// Remembers what has come.
class Sink final : public FrameSink {
 public:
  bool take(std::span<const std::byte> bytes) override {
    const std::scoped_lock lock(mutex_);
    if (fails_) throw std::runtime_error("no place for it");
    const Incoming incoming = reader_.read(bytes);
    kinds_.push_back(incoming.kind);
    if (incoming.kind == FrameKind::Message || incoming.kind == FrameKind::Continuation)
      messages_ += incoming.last ? 1 : 0;
    changed_.notify_all();
    return incoming.kind != FrameKind::Goodbye;
  }
  void ended(const std::exception_ptr& why) override {
    const std::scoped_lock lock(mutex_);
    try {
      std::rethrow_exception(why);
    } catch (const ConnectionClosed&) {
      ends_.emplace_back("closed");
    } catch (const std::exception& error) {
      ends_.emplace_back(error.what());
    }
    changed_.notify_all();
  }

  std::vector<FrameKind> wait_for_frames(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return kinds_.size() >= count; });
    return kinds_;
  }
  void wait_for_messages(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return messages_ >= count; });
  }
  std::string wait_for_end() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ends_.empty(); });
    return ends_.front();
  }
  [[nodiscard]] std::size_t frames() {
    const std::scoped_lock lock(mutex_);
    return kinds_.size();
  }
  void fail() {
    const std::scoped_lock lock(mutex_);
    fails_ = true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  FrameReader reader_{{identity, 0, 1, 1, 2}};
  std::vector<FrameKind> kinds_;
  std::vector<std::string> ends_;
  int messages_ = 0;
  bool fails_ = false;
};

Outgoing word(FrameKind kind) {
  Outgoing outgoing;
  outgoing.frame.kind = kind;
  return outgoing;
}

Outgoing message(std::int64_t numbers) {
  std::vector<at::Tensor> on_device;
  return outgoing_message({0, 1, 0, 0, 0}, {at::ones({numbers})}, std::nullopt, 1U << 30U, on_device);
}

std::chrono::steady_clock::time_point in_an_hour() { return std::chrono::steady_clock::now() + std::chrono::hours(1); }

class Channels : public testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] static bool shares_memory() { return GetParam(); }

  // The channels of a process that sends and of one that receives. \param starts_receiver whether frames are taken yet.
  void connect(bool starts_receiver = true) {
    if (shares_memory()) {
      auto made = SharedMemory::make();
      auto opened = SharedMemory::open(made->name());
      sender = std::make_unique<SharedMemoryChannel>(std::move(made), identity, std::chrono::microseconds(0));
      receiver = std::make_unique<SharedMemoryChannel>(std::move(opened), identity, std::chrono::microseconds(0));
    } else {
      sender = std::make_unique<GlooChannel>(*groups[0], 1, identity);
      receiver = std::make_unique<GlooChannel>(*groups[1], 0, identity);
    }
    sender->start(sink_of_sender);
    if (starts_receiver) receiver->start(sink);
  }

  FakeLine line;
  std::array<c10::intrusive_ptr<FakeGroup>, 2> groups{c10::make_intrusive<FakeGroup>(line, 0),
                                                      c10::make_intrusive<FakeGroup>(line, 1)};
  Sink sink_of_sender;
  Sink sink;
  std::unique_ptr<Channel> sender;
  std::unique_ptr<Channel> receiver;
};

TEST_P(Channels, BringWhatWasSentInItsOrder) {
  connect();
  for (int round = 0; round < 20; ++round) EXPECT_TRUE(sender->send(message(3), Place::Behind));
  EXPECT_TRUE(sender->send(word(FrameKind::Goodbye), Place::Behind));
  std::vector<FrameKind> expected(20, FrameKind::Message);
  expected.push_back(FrameKind::Goodbye);
  EXPECT_EQ(sink.wait_for_frames(21), expected);
  sender->wait_until_sent(in_an_hour());
  EXPECT_FALSE(sender->counts().waits);
  EXPECT_EQ(sender->counts().frames, 21U);
}

TEST_P(Channels, DoNotWaitForOneWhoTakesNothingAndLetAnAbortOvertakeWhatIsKept) {
  connect(/*starts_receiver=*/false);
  // A message of many frames has begun when all room is taken.
  EXPECT_TRUE(sender->send(message(1'000'000), Place::Behind));
  EXPECT_TRUE(sender->send(message(3), Place::Behind));
  EXPECT_TRUE(sender->counts().waits);
  EXPECT_TRUE(sender->send(word(FrameKind::Abort), Place::InFront));
  EXPECT_TRUE(sender->send(word(FrameKind::Goodbye), Place::Behind));
  receiver->start(sink);
  sink.wait_for_messages(2);
  sender->wait_until_sent(in_an_hour());
  const std::size_t frames = sender->counts().frames;
  const std::vector<FrameKind> kinds = sink.wait_for_frames(frames);
  EXPECT_THAT(std::vector(kinds.end() - 3, kinds.end()),
              ElementsAre(FrameKind::Abort, FrameKind::Message, FrameKind::Goodbye));
}

TEST_P(Channels, KeepNothingOnceStopped) {
  connect(/*starts_receiver=*/false);
  EXPECT_TRUE(sender->send(message(1'000'000), Place::Behind));
  sender->stop();
  EXPECT_FALSE(sender->send(message(3), Place::Behind));
  // Returns at once, though not everything has been sent.
  sender->wait_until_sent(in_an_hour());
}

TEST_P(Channels, CanBeClosedWhileASendIsPendingAndAReceiveWaits) {
  connect(/*starts_receiver=*/false);
  EXPECT_TRUE(sender->send(message(1'000'000), Place::Behind));
  sender->close();
  sender->close();
  receiver->start(sink);
  receiver->close();
  EXPECT_LE(sink.frames(), 8U) << "no more than what was on its way";
}

TEST_P(Channels, EndForAReceiverThatCannotTakeAFrameAndSayWhy) {
  connect();
  sink.fail();
  EXPECT_TRUE(sender->send(message(3), Place::Behind));
  EXPECT_EQ(sink.wait_for_end(), "no place for it");
}

TEST_P(Channels, TakeWhatComesAfterTheyHaveStopped) {
  connect();
  receiver->stop();
  EXPECT_TRUE(sender->send(message(3), Place::Behind));
  sink.wait_for_messages(1);
}

INSTANTIATE_TEST_SUITE_P(Ways, Channels, testing::Bool(),
                         [](const auto& instance) { return instance.param ? "shared_memory" : "gloo"; });

class GlooChannels : public testing::Test {
 protected:
  GlooChannels() { channel.start(sink); }
  FakeLine line;
  FakeGroup group{line, 0};
  Sink sink;
  GlooChannel channel{group, 1, identity};
};

TEST_F(GlooChannels, SayThatTheOtherEndIsClosed) {
  line.close();
  EXPECT_EQ(sink.wait_for_end(), "closed");
}

TEST_F(GlooChannels, SendNothingIntoAClosedConnectionAndEndForIt) {
  line.close();
  static_cast<void>(channel.send(message(3), Place::Behind));
  EXPECT_EQ(sink.wait_for_end(), "closed");
  EXPECT_EQ(channel.counts().frames, 0U);
}

TEST_F(GlooChannels, WaitForWhatIsUnderWay) {
  EXPECT_TRUE(channel.send(message(3), Place::Behind));
  // Nobody receives: it is under way until the time is over.
  channel.wait_until_sent(std::chrono::steady_clock::now());
  EXPECT_FALSE(channel.counts().waits) << "it waits for no buffer";
  FakeGroup other(line, 1);
  std::vector<at::Tensor> buffer{at::empty({static_cast<std::int64_t>(largest_frame_bytes)}, at::kByte)};
  EXPECT_TRUE(other.recv(buffer, 0, 0)->wait(std::chrono::hours(1)));
  channel.wait_until_sent(in_an_hour());
}

// The reader of the ring.
class RankThatReads : public testing::Test {
 protected:
  RankThatReads() {
    auto made = SharedMemory::make();
    auto opened = SharedMemory::open(made->name());
    sender = std::make_unique<SharedMemoryChannel>(std::move(made), identity, std::chrono::microseconds(0));
    receiver = std::make_unique<SharedMemoryChannel>(std::move(opened), identity, std::chrono::microseconds(0));
  }
  Sink sink_of_sender;
  Sink sink;
  std::unique_ptr<SharedMemoryChannel> sender;
  std::unique_ptr<SharedMemoryChannel> receiver;
};

TEST_F(RankThatReads, TakesTheFramesThatItWaitsForItself) {
  sender->start(sink_of_sender);
  receiver->start(sink);
  for (std::size_t round = 1; round <= 100; ++round) {
    EXPECT_TRUE(sender->send(message(3), Place::Behind));
    receiver->receive_until([&] { return sink.frames() >= round; });
    EXPECT_EQ(sink.frames(), round);
  }
}

TEST_F(RankThatReads, TakesWhatIsThereWithoutWaiting) {
  sender->start(sink_of_sender);
  receiver->start(sink);
  receiver->receive_ready();
  EXPECT_EQ(sink.frames(), 0U);
  EXPECT_TRUE(sender->send(message(3), Place::Behind));
  receiver->receive_ready();
  EXPECT_EQ(sink.frames(), 1U);
}

TEST_F(RankThatReads, IsLetGoWhenWhatItWaitsForIsOver) {
  sender->start(sink_of_sender);
  receiver->start(sink);
  std::atomic<bool> aborted{false};
  std::atomic<int> looks{0};
  std::thread rank([&] {
    receiver->receive_until([&] {
      ++looks;
      return aborted.load();
    });
  });
  while (looks == 0) std::this_thread::yield();
  aborted = true;
  rank.join();
}

TEST_F(RankThatReads, IsLetGoByTheFrameThatCannotBeTaken) {
  sender->start(sink_of_sender);
  receiver->start(sink);
  sink.fail();
  EXPECT_TRUE(sender->send(message(3), Place::Behind));
  receiver->receive_until([] { return false; });
  EXPECT_EQ(sink.wait_for_end(), "no place for it");
}

}  // namespace
}  // namespace penstock::channels_test
