#include "transport/c10d/link.h"

#include <array>
#include <functional>
#include <future>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "transport/c10d/backend.h"

namespace penstock {
namespace {

using testing::HasSubstr;

constexpr FrameAddress from_0_to_1{0, 1, 0, 0, 0};
using OnMessage = std::function<void(std::vector<at::Tensor>)>;

// What a link that receives says of its end.
struct End {
  std::promise<std::string> lost;
  std::promise<std::string> failed;
};

LinkObserver observer_of(End& end, OnMessage on_message) {
  LinkObserver observer;
  observer.on_message = [on_message = std::move(on_message)](const FrameAddress&, std::vector<at::Tensor> tensors,
                                                             const std::function<bool()>&) {
    on_message(std::move(tensors));
  };
  observer.on_abort = [](const std::string&, bool) {};
  observer.on_lost = [&end](const std::string& reason) { end.lost.set_value(reason); };
  observer.on_failed = [&end](const std::string& reason) { end.failed.set_value(reason); };
  return observer;
}

// From rank 0 of one process to rank 1 of another, through Gloo or shared memory.
class Links : public testing::TestWithParam<bool> {
 protected:
  Links() {
    const auto store = c10::make_intrusive<c10d::HashStore>();
    const auto make = [store](int process) {
      ProcessSettings pair;
      pair.process = process;
      pair.processes = 2;
      pair.own_address = "127.0.0.1";
      return make_backend(pair, store);
    };
    auto other = std::async(std::launch::async, [&] { return make(1); });
    groups[0] = make(0);
    groups[1] = other.get();
  }

  void connect(OnMessage on_message) {
    std::array<std::unique_ptr<SharedMemory>, 2> shared;
    if (GetParam()) {
      shared[0] = SharedMemory::make();
      shared[1] = SharedMemory::open(shared[0]->name());
    }
    LinkSettings settings{1, {7, 1, 2, 0, 1, 1}, {}, nullptr};
    sender =
        std::make_unique<Link>(*groups[0], settings, observer_of(of_sender, [](const auto&) {}), std::move(shared[0]));
    settings = {0, {7, 0, 1, 1, 2, 1}, {}, nullptr};
    receiver = std::make_unique<Link>(*groups[1], settings, observer_of(of_receiver, std::move(on_message)),
                                      std::move(shared[1]));
  }

  std::array<c10::intrusive_ptr<c10d::Backend>, 2> groups;
  End of_sender;
  End of_receiver;
  std::unique_ptr<Link> sender;
  std::unique_ptr<Link> receiver;
};

// Whoever waits for a message that could not be taken must not wait for ever.
TEST_P(Links, WhatFailsInItsThreadsIsSaidWhateverItIs) {
  connect([](const auto&) { throw std::runtime_error("no place for it"); });
  sender->send(from_0_to_1, {at::ones({3})});
  EXPECT_EQ(of_receiver.failed.get_future().get(), "no place for it");
}

TEST_P(Links, WhatIsNoExceptionOfTheLibraryFailsToo) {
  connect([](const auto&) { throw 7; });
  sender->send(from_0_to_1, {at::ones({3})});
  EXPECT_EQ(of_receiver.failed.get_future().get(), "an unknown exception");
}

TEST_P(Links, OfLibtorchsErrorsTheFirstLineIsSaid) {
  connect([](const auto& tensors) { static_cast<void>(tensors.front().view({5})); });
  sender->send(from_0_to_1, {at::ones({3})});
  const std::string reason = of_receiver.failed.get_future().get();
  EXPECT_THAT(reason, HasSubstr("shape '[5]' is invalid"));
  EXPECT_THAT(reason, testing::Not(HasSubstr("\n")));
}

TEST_P(Links, AFrameThatIsRefusedIsTheOthersFault) {
  connect([](const auto&) {});
  FrameAddress foreign = from_0_to_1;
  foreign.to = 0;
  sender->send(foreign, {at::ones({3})});
  EXPECT_THAT(of_receiver.lost.get_future().get(), HasSubstr("the receiving rank 0; expected 1 to 1"));
}

INSTANTIATE_TEST_SUITE_P(Ways, Links, testing::Bool(),
                         [](const auto& instance) { return instance.param ? "shared_memory" : "gloo"; });

}  // namespace
}  // namespace penstock
