#include "transport/device/direct.h"

#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "penstock/base/error.h"

#include "transport/gloo/backend.h"

namespace penstock {
namespace {

// A pair of ends that Gloo joins, as NCCL would on devices.
class Direct : public testing::Test {
 protected:
  Direct() {
    const DirectBackend gloo{nullptr, [](const c10::intrusive_ptr<c10d::Store>& store, int member) {
                               ProcessSettings pair;
                               pair.process = member;
                               pair.processes = 2;
                               pair.own_address = "127.0.0.1";
                               return make_backend(pair, store);
                             }};
    const auto store = c10::make_intrusive<c10d::HashStore>();
    auto other = std::async(std::launch::async,
                            [&] { return std::make_unique<DirectChannel>(gloo, store, 1, at::Device(at::kCPU)); });
    sender = std::make_unique<DirectChannel>(gloo, store, 0, at::Device(at::kCPU));
    receiver = other.get();
  }

  std::unique_ptr<DirectChannel> sender;
  std::unique_ptr<DirectChannel> receiver;
};

const Layouts of_device_and_host{
    {WireDtype::Float32, {2, 3}, false, true}, {WireDtype::Int64, {4}}, {WireDtype::Bool, {5}, false, true}};

TEST_F(Direct, WhatIsOnADeviceArrivesInItsLayout) {
  auto expected = receiver->receive(of_device_and_host);
  ASSERT_EQ(expected.tensors.size(), 2U);
  const at::Tensor numbers = at::rand({2, 3});
  const at::Tensor flags = at::rand({5}) > 0.5;
  sender->send({numbers, flags});
  ASSERT_TRUE(expected.wait());
  EXPECT_TRUE(at::equal(expected.tensors[0], numbers));
  EXPECT_TRUE(at::equal(expected.tensors[1], flags));
}

TEST_F(Direct, AnAbortEndsTheWaitForWhatDoesNotCome) {
  auto expected = receiver->receive(of_device_and_host);
  auto waits = std::async(std::launch::async, expected.wait);
  receiver->abort();
  EXPECT_FALSE(waits.get());
  // Also for what is waited for only then.
  EXPECT_FALSE(receiver->receive(of_device_and_host).wait());
}

TEST(DirectChannels, OneDeviceAndTheHostAreNotReached) {
  const at::Device host(at::kCPU);
  // Rank 1 has no device; 2 is on that of 0, 3 on another. This process has the ranks 2 and 3.
  const DirectChannels channels({}, nullptr, {"a", "", "a", "b"}, {host, host}, RankId{2});
  EXPECT_FALSE(channels.device_between({0}, {2}));
  EXPECT_FALSE(channels.device_between({3}, {1}));
  EXPECT_TRUE(channels.device_between({0}, {3}));
  EXPECT_TRUE(channels.device_between({3}, {0}));
  EXPECT_TRUE(channels.reaches_any({0}, {2}));
  EXPECT_FALSE(channels.reaches_any({1}, {2}));
}

// A store that keeps what the other end has said already.
DirectChannels::OpenStore store_with_the_other_end() {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  store->set("direct/0/1/here/1", std::vector<std::uint8_t>{1});
  return [store]() -> c10::intrusive_ptr<c10d::Store> { return store; };
}

TEST(DirectChannels, ABackendThatFailsSaysSoInOneLine) {
  DirectBackend broken;
  broken.make = [](const c10::intrusive_ptr<c10d::Store>&, int) -> c10::intrusive_ptr<c10d::Backend> {
    TORCH_CHECK(false, "NCCL error: unhandled system error");
  };
  DirectChannels channels(broken, store_with_the_other_end(), {"a", "b"}, {at::Device(at::kCPU)}, RankId{0});
  try {
    channels.send({0}, {1}, {});
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("NCCL error: unhandled system error"));
    EXPECT_THAT(error.what(), testing::Not(testing::HasSubstr("\n")));
  }
}

TEST(DirectChannels, AnAbortEndsTheWaitForAnEndThatDoesNotCome) {
  const auto open = [] { return c10::make_intrusive<c10d::HashStore>(); };
  DirectChannels channels({}, open, {"a", "b"}, {at::Device(at::kCPU)}, RankId{0});
  auto waits = std::async(std::launch::async, [&] { channels.send({0}, {1}, {}); });
  channels.abort();
  EXPECT_THROW(waits.get(), Error);
}

}  // namespace
}  // namespace penstock
