// What a link does with messages and frames, over channels that the test moves by hand.
#include "transport/link/link.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <optional>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

#include "unit/transport/fake_channel.h"

namespace penstock::link_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr FrameAddress from_0_to_1{0, 1, 0, 0, 0};
constexpr std::uint64_t identity = 7;
const LinkTerms from_rank_0{identity, 0, 1, 1, 2};
const LinkTerms from_rank_1{identity, 1, 2, 0, 1};

// A path between devices that are all the host: what is sent lies in it until it is received.
class FakePath final : public DevicePath {
 public:
  explicit FakePath(std::optional<at::Device> device) : device_(device) {}
  [[nodiscard]] std::optional<at::Device> device_between(RankId, RankId) const override { return device_; }
  void send(RankId, RankId, const std::vector<at::Tensor>& tensors) override { sent = tensors; }
  [[nodiscard]] ExpectedTensors receive(RankId, RankId, const Layouts& layouts) override {
    announced = layouts;
    return {sent, [] { return true; }};
  }
  std::vector<at::Tensor> sent;
  Layouts announced;

 private:
  std::optional<at::Device> device_;
};

// A link from rank 0 of one process to rank 1 of another; this is the receiving end, and `sender` the other.
class Links : public testing::Test {
 protected:
  // \param with_data whether messages have a channel of their own.
  void connect(bool with_data = true, DevicePath* devices = nullptr) {
    sender = make({1, from_rank_1, devices}, sending_control, with_data ? &sending_data : nullptr, [](const auto&) {});
    terms = from_rank_0;
    terms.on_device = devices != nullptr;
    receiver = make({0, terms, devices}, control, with_data ? &data : nullptr, [this](const auto& tensors) {
      arrived.push_back(tensors);
      if (on_message) on_message(tensors);
    });
  }

  // What waits at the sender, as frames.
  Frames frames() { return taken_frames(messages_of_sender(), writer); }
  // Gives frames to the receiver as its channel would: until it wants no more. Whether it still does.
  bool bring(const Frames& frames) {
    return std::ranges::all_of(frames, [this](const auto& frame) { return bring(frame); });
  }
  bool bring(const std::vector<std::byte>& frame) {
    FrameSink& sink = *messages_of_receiver().sink;
    try {
      return sink.take(frame);
    } catch (...) {
      sink.ended(std::current_exception());
      return false;
    }
  }
  FakeWire& messages_of_sender() { return sending_data.sink != nullptr ? sending_data : sending_control; }
  FakeWire& messages_of_receiver() { return data.sink != nullptr ? data : control; }

  StandingClock clock;
  FakeWire sending_control;
  FakeWire sending_data;
  FakeWire control;
  FakeWire data;
  LinkTerms terms;
  MessageWriter writer{identity};
  std::vector<std::vector<at::Tensor>> arrived;
  std::function<void(const std::vector<at::Tensor>&)> on_message;
  std::vector<std::string> told;
  std::unique_ptr<Link> sender;
  std::unique_ptr<Link> receiver;

 private:
  std::unique_ptr<Link> make(const LinkSettings& settings, FakeWire& control_wire, FakeWire* data_wire,
                             std::function<void(const std::vector<at::Tensor>&)> take) {
    SessionObserver observer;
    observer.on_abort = [this](const std::string& reason, bool) { told.push_back("abort: " + reason); };
    observer.on_lost = [this](const std::string& reason) { told.push_back("lost: " + reason); };
    observer.on_failed = [this](const std::string& reason) { told.push_back("failed: " + reason); };
    auto link = std::make_unique<Link>(
        settings,
        [take = std::move(take)](const FrameAddress&, const std::vector<at::Tensor>& tensors,
                                 const std::function<bool()>& wait) {
          if (wait) {
            EXPECT_TRUE(wait());
          }
          take(tensors);
        },
        observer, std::make_unique<FakeChannel>(control_wire),
        data_wire == nullptr ? nullptr : std::make_unique<FakeChannel>(*data_wire), clock);
    link->start();
    return link;
  }
};

TEST_F(Links, MessagesGoThroughTheDataChannelAndAllElseThroughControl) {
  connect();
  const at::Tensor numbers = at::arange(6).view({2, 3}).t();
  sender->send(from_0_to_1, {numbers, at::Tensor(), at::ones({2}).requires_grad_()});
  sender->session().heartbeat();
  EXPECT_THAT(sending_data.kinds(), ElementsAre(FrameKind::Message));
  EXPECT_THAT(sending_control.kinds(), ElementsAre(FrameKind::Heartbeat));
  EXPECT_TRUE(bring(frames()));
  ASSERT_EQ(arrived.size(), 1U);
  EXPECT_TRUE(at::equal(arrived[0].at(0), numbers));
  EXPECT_EQ(arrived[0].at(0).strides(), numbers.strides());
  EXPECT_FALSE(arrived[0].at(1).defined());
  EXPECT_TRUE(arrived[0].at(2).requires_grad());
}

TEST_F(Links, WithoutADataChannelAllGoesThroughControlAndAMessageArrivesWithItsLastFrame) {
  connect(/*with_data=*/false);
  const at::Tensor large = at::arange(100'000);
  sender->send(from_0_to_1, {large});
  const Frames of_message = frames();
  ASSERT_GT(of_message.size(), 3U);
  for (const auto& frame : of_message) {
    EXPECT_EQ(arrived.size(), 0U);
    EXPECT_TRUE(bring(frame));
  }
  ASSERT_EQ(arrived.size(), 1U);
  EXPECT_TRUE(at::equal(arrived[0].at(0), large));
  sender->session().heartbeat();
  EXPECT_TRUE(bring(frames()));
  EXPECT_EQ(arrived.size(), 1U);
  EXPECT_TRUE(told.empty());
}

TEST_F(Links, EveryFrameIsASignOfLife) {
  connect();
  sender->send(from_0_to_1, {at::ones({3})});
  clock.advance({400});
  bring(frames());
  clock.advance({400});
  receiver->session().check_heard({500});
  EXPECT_TRUE(told.empty());
  clock.advance({101});
  receiver->session().check_heard({500});
  EXPECT_THAT(told, ElementsAre("lost: it has said nothing for 0.5 s"));
}

TEST_F(Links, ADamagedFrameIsTheOthersFaultAndNothingOfItArrives) {
  connect();
  sender->send(from_0_to_1, {at::ones({3})});
  Frames damaged = frames();
  damaged.front().front() = std::byte{'X'};
  EXPECT_FALSE(bring(damaged));
  ASSERT_EQ(told.size(), 1U);
  EXPECT_THAT(told.front(), HasSubstr("lost: a message with a foreign beginning; expected penstock's"));
  EXPECT_TRUE(arrived.empty());
  EXPECT_TRUE(control.stopped && data.stopped);
}

TEST_F(Links, FramesOutOfOrderAreRefused) {
  connect();
  sender->send(from_0_to_1, {at::ones({3})});
  sender->send(from_0_to_1, {at::ones({3})});
  Frames both = frames();
  std::swap(both.at(0), both.at(1));
  bring(both);
  EXPECT_THAT(told.at(0), HasSubstr("the number 1; expected number 0"));
  EXPECT_TRUE(arrived.empty());
}

TEST_F(Links, AFrameThatIsMissingIsNoticed) {
  connect();
  sender->send(from_0_to_1, {at::arange(100'000)});
  Frames of_message = frames();
  of_message.erase(of_message.begin() + 1);
  bring(of_message);
  EXPECT_THAT(told.at(0), HasSubstr("the number 2; expected number 1"));
  EXPECT_TRUE(arrived.empty());
}

TEST_F(Links, MessagesForOtherRanksAreRefused) {
  connect();
  FrameAddress foreign = from_0_to_1;
  foreign.to = 0;
  sender->send(foreign, {at::ones({3})});
  bring(frames());
  EXPECT_THAT(told.at(0), HasSubstr("the receiving rank 0; expected 1 to 1"));
}

// What a tag means is for those who send and receive.
TEST_F(Links, TagsOfAnyKindPass) {
  connect();
  FrameAddress odd = from_0_to_1;
  odd.tag_kind = 255;
  odd.channel = -5;
  sender->send(odd, {at::ones({3})});
  bring(frames());
  EXPECT_EQ(arrived.size(), 1U);
}

TEST_F(Links, WhatNoMessageHoldsIsRefusedAndTheNextOneGoesAsIfItHadNotBeen) {
  connect();
  sender->send(from_0_to_1, {at::ones({3})});
  EXPECT_THROW(sender->send(from_0_to_1, {at::ones({5}), at::eye(3).to_sparse()}), Error);
  EXPECT_EQ(sending_data.waiting.size(), 1U);
  sender->send(from_0_to_1, {at::ones({3})});
  bring(frames());
  EXPECT_EQ(arrived.size(), 2U);
  EXPECT_EQ(sender->report().messages_sent, 2);
}

TEST_F(Links, AnAbortOvertakesTheMessagesThatWait) {
  connect(/*with_data=*/false);
  sender->send(from_0_to_1, {at::ones({3})});
  sender->session().send_abort("rank 0 gave up", /*peer_is_lost=*/false);
  Frames both = frames();
  EXPECT_TRUE(bring(both.at(0)));
  EXPECT_THAT(told, ElementsAre("abort: rank 0 gave up"));
  EXPECT_TRUE(arrived.empty());
  EXPECT_TRUE(bring(both.at(1)));
  EXPECT_EQ(arrived.size(), 1U);
}

TEST_F(Links, WhatIsStillToBeSentToOneWhoIsLostIsDroppedAndNotCounted) {
  connect();
  sender->send(from_0_to_1, {at::ones({3})});
  sending_control.sink->ended(std::make_exception_ptr(ConnectionClosed()));
  EXPECT_TRUE(sending_data.waiting.empty());
  sender->send(from_0_to_1, {at::ones({3})});
  EXPECT_TRUE(sending_data.waiting.empty());
  EXPECT_EQ(sender->report().messages_sent, 1);
}

// Whoever waits for a message that could not be taken must not wait for ever.
TEST_F(Links, WhatFailsInItsThreadsIsSaidWhateverItIs) {
  connect();
  on_message = [](const auto&) { throw std::runtime_error("no place for it"); };
  sender->send(from_0_to_1, {at::ones({3})});
  bring(frames());
  EXPECT_THAT(told, ElementsAre("failed: no place for it"));
}

TEST_F(Links, OfLibtorchsErrorsTheFirstLineIsSaid) {
  connect();
  on_message = [](const auto& tensors) { static_cast<void>(tensors.front().view({5})); };
  sender->send(from_0_to_1, {at::ones({3})});
  bring(frames());
  EXPECT_THAT(told.at(0), HasSubstr("failed: shape '[5]' is invalid"));
  EXPECT_THAT(told.at(0), testing::Not(HasSubstr("\n")));
}

TEST_F(Links, ARankThatWaitsReadsTheDataChannelItself) {
  connect();
  int asked = 0;
  receiver->receive_until([&] { return ++asked == 3; });
  receiver->receive_ready();
  EXPECT_EQ(data.reads_by_rank, 3);
  EXPECT_EQ(control.reads_by_rank, 0);
}

TEST_F(Links, WithDevicesTheChannelsThreadReadsAlone) {
  FakePath path{at::Device(at::kCPU)};
  connect(/*with_data=*/true, &path);
  receiver->receive_until([] { return false; });
  receiver->receive_ready();
  EXPECT_EQ(data.reads_by_rank, 0);
}

TEST_F(Links, TensorsOnDevicesGoBesideTheFrameThatAnnouncesThem) {
  FakePath path{at::Device(at::kCPU)};
  connect(/*with_data=*/true, &path);
  const at::Tensor numbers = at::rand({2, 3});
  sender->send(from_0_to_1, {numbers, at::Tensor()});
  const Frames announcement = frames();
  ASSERT_EQ(announcement.size(), 1U);
  EXPECT_LT(announcement.front().size(), frame_header_bytes + 40);
  bring(announcement);
  ASSERT_EQ(arrived.size(), 1U);
  EXPECT_TRUE(arrived[0].at(0).is_same(path.sent.at(0)));
  EXPECT_TRUE(path.announced.at(0).on_device);
  EXPECT_EQ(sender->report().sent.count, 24) << "the fake channel counts no frames";
  EXPECT_EQ(receiver->report().received.count, static_cast<std::int64_t>(frame_header_bytes) + 24);
}

TEST_F(Links, ATensorOnADeviceThatTheReceiverDoesNotReachIsRefused) {
  FakePath path{at::Device(at::kCPU)};
  connect(/*with_data=*/true, &path);
  sender->send(from_0_to_1, {at::rand({2, 3})});
  const Frames announcement = frames();
  // The same terms, and yet no device between the two.
  FakePath elsewhere{std::nullopt};
  MessageAssembly assembly(&elsewhere);
  FrameReader reader(terms);
  try {
    static_cast<void>(assembly.add(reader.read(announcement.front())));
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("a tensor on a device from rank 0 to rank 1"));
  }
}

TEST_F(Links, TheReportCountsWhatWentAndWhatCame) {
  connect();
  sender->send(from_0_to_1, {at::ones({3})});
  sending_data.counts.bytes = Bytes{100};
  sending_control.counts.bytes = Bytes{20};
  bring(frames());
  EXPECT_EQ(sender->report(), (LinkReport{1, Bytes{120}, Bytes{0}, 1, 0}));
  EXPECT_EQ(receiver->report(), (LinkReport{0, Bytes{0}, Bytes{64 + 12}, 0, 1}));
}

TEST_F(Links, ALinkThatIsEndedClosesItsChannels) {
  connect();
  receiver.reset();
  EXPECT_TRUE(control.stopped && control.closed && data.stopped && data.closed);
  EXPECT_TRUE(told.empty());
}

}  // namespace
}  // namespace penstock::link_test
