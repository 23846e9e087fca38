#include "penstock/transport/transport.h"

#include <atomic>
#include <fmt/format.h>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string_view>
#include <thread>

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "penstock/base/clock.h"
#include "penstock/base/listening.h"
#include "penstock/transport/c10d.h"

#include "transport/c10d/backend.h"
#include "transport/c10d/direct.h"
#include "transport/strided_tensor.h"
#include "unit/transport/strided_tensors.h"

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
  // Otherwise a message is handed over as it is.
  [[nodiscard]] static bool between_processes() { return !std::string_view(GetParam().first).starts_with("inproc"); }
};

// What a send of rank 0 to rank 3 says against `message`.
std::string refusal(Transport& end, const std::vector<at::Tensor>& message) {
  try {
    end.send({3}, {MessageKind::Activation, 1, 0}, message);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_THAT(error.what(), testing::Not(testing::HasSubstr("\n")));
    return error.what();
  }
  return "sent";
}

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

TEST_P(Conformance, WhatHasArrivedCanBeAskedForWithoutWaiting) {
  const Ends ends = make(2);
  EXPECT_FALSE(ends[1]->has_arrived({0}, activation(0)));
  ends[0]->send({1}, activation(1), {at::ones({1})});
  ends[0]->send({1}, activation(0), {at::ones({1})});
  // Messages of two tags arrive in the order in which they were sent, or earlier.
  static_cast<void>(ends[1]->receive({0}, activation(0)));
  EXPECT_TRUE(ends[1]->has_arrived({0}, activation(1)));
  EXPECT_FALSE(ends[1]->has_arrived({0}, activation(0)));
  static_cast<void>(ends[1]->receive({0}, activation(1)));
  EXPECT_FALSE(ends[1]->has_arrived({0}, activation(1)));
  ends[0]->abort("rank 0 gave up");
  EXPECT_THROW(static_cast<void>(ends[0]->has_arrived({1}, activation(0))), Aborted);
}

TEST_P(Conformance, WhetherATensorRequiresItsGradientArrives) {
  const Ends ends = make(2);
  for (const bool requires_gradient : {true, false, true}) {
    ends[0]->send({1}, activation(0), {at::ones({3}).requires_grad_(requires_gradient), at::ones({2})});
    const auto got = ends[1]->receive({0}, activation(0));
    EXPECT_EQ(got[0].requires_grad(), requires_gradient);
    EXPECT_FALSE(got[1].requires_grad());
  }
}

TEST_P(Conformance, AnySizeAndTypeArrivesWhole) {
  const Ends ends = make(2);
  constexpr std::int64_t many = 300'000;
  const std::vector<at::Tensor> sent{at::arange(many, at::kLong).reshape({3, -1}),
                                     at::rand({7, 5}).to(at::kBFloat16),
                                     at::ones({4, 6}).t(),
                                     at::zeros({0, 3}),
                                     at::scalar_tensor(2.5, at::kDouble),
                                     at::ones({2}, at::kBool)};
  for (int round = 0; round < 3; ++round) {
    std::vector<at::Tensor> message = sent;
    // Layouts that change under way, and one that comes back.
    if (round == 1) message[0] = at::arange(17, at::kInt);
    ends[0]->send({1}, activation(round), message);
    const auto got = ends[1]->receive({0}, activation(round));
    ASSERT_EQ(got.size(), message.size());
    for (std::size_t index = 0; index < got.size(); ++index) {
      EXPECT_EQ(got[index].scalar_type(), message[index].scalar_type());
      EXPECT_TRUE(at::equal(got[index], message[index])) << index;
    }
  }
}

// Whatever stands in memory in the same way gives the same numbers: see decision 24.
void expect_same(const at::Tensor& got, const at::Tensor& sent, const std::string& name) {
  ASSERT_EQ(got.defined(), sent.defined()) << name;
  if (!sent.defined()) return;
  EXPECT_EQ(got.sizes(), sent.sizes()) << name;
  EXPECT_EQ(got.strides(), sent.strides()) << name;
  EXPECT_EQ(got.scalar_type(), sent.scalar_type()) << name;
  EXPECT_TRUE(same_bytes(got, sent)) << name;
}

TEST_P(Conformance, EveryLayoutArrivesWithItsStrides) {
  const Ends ends = make(3);
  std::int32_t microbatch = 0;
  for (const at::ScalarType dtype : {at::kFloat, at::kByte, at::kBFloat16, at::kComplexDouble, at::kLong}) {
    std::vector<at::Tensor> together;
    for (const auto& [name, tensor] : tensors_of_all_layouts(dtype)) {
      ends[0]->send({2}, activation(++microbatch), {tensor});
      const at::Tensor got = ends[2]->receive({0}, activation(microbatch)).at(0);
      expect_same(got, tensor, name);
      // What a receiver counts: the span, and nothing of what else the sender's storage holds.
      if (between_processes()) {
        EXPECT_EQ(got.storage().nbytes(), extent_of(tensor).span * tensor.itemsize()) << name;
      }
      together.push_back(tensor);
    }
    // All in one message, and as the layouts that are remembered.
    for (int round = 0; round < 2; ++round) {
      ends[0]->send({2}, {MessageKind::Gradient, 1, 0}, together);
      const auto got = ends[2]->receive({0}, {MessageKind::Gradient, 1, 0});
      ASSERT_EQ(got.size(), together.size());
      for (std::size_t index = 0; index < got.size(); ++index)
        expect_same(got[index], together[index], fmt::format("number {}", index));
    }
  }
}

TEST_P(Conformance, EveryPlainDtypeArrives) {
  const Ends ends = make(3);
  const at::Tensor bytes = at::arange(256, at::kByte).view({16, 16});
  std::vector<at::Tensor> sent;
  using enum at::ScalarType;
  for (const at::ScalarType dtype : {Byte,          Char,          Short,           Int,
                                     Long,          Half,          Float,           Double,
                                     Bool,          BFloat16,      ComplexHalf,     ComplexFloat,
                                     ComplexDouble, UInt16,        UInt32,          UInt64,
                                     Float8_e5m2,   Float8_e4m3fn, Float8_e5m2fnuz, Float8_e4m3fnuz,
                                     Float8_e8m0fnu}) {
    const at::Tensor whole = dtype == Bool ? bytes > 100 : bytes.view(dtype);
    for (const at::Tensor& tensor :
         {whole, whole.t(), whole.slice(0, 0, 16, 3), whole.slice(0, 1, 2).expand({3, -1}), whole.unfold(0, 3, 2)})
      sent.push_back(tensor);
  }
  sent.push_back(bytes.view(Float4_e2m1fn_x2));
  ends[0]->send({2}, activation(0), sent);
  const auto got = ends[2]->receive({0}, activation(0));
  ASSERT_EQ(got.size(), sent.size());
  for (std::size_t index = 0; index < got.size(); ++index)
    expect_same(got[index], sent[index], c10::toString(sent[index].scalar_type()));
}

// What a view shows, and not what its memory holds.
TEST_P(Conformance, ConjugatedAndNegatedViewsArriveAsWhatTheyShow) {
  const Ends ends = make(3);
  const at::Tensor numbers = at::complex(at::rand({3, 4}), at::rand({3, 4}));
  const std::vector<at::Tensor> sent{numbers.conj(),
                                     numbers.t().conj(),
                                     at::imag(numbers.conj()),
                                     numbers[1].conj(),
                                     numbers.select(1, 2).conj(),
                                     numbers.conj().expand({2, 3, 4}),
                                     at::_efficientzerotensor({2, 3})};
  ends[0]->send({2}, activation(0), sent);
  const auto got = ends[2]->receive({0}, activation(0));
  ASSERT_EQ(got.size(), sent.size());
  for (std::size_t index = 0; index < got.size(); ++index) {
    EXPECT_TRUE(at::equal(got[index], sent[index].clone())) << index;
    EXPECT_EQ(got[index].strides(), sent[index].strides()) << index;
  }
}

// As a layer may change any tensor that it is given, and its gradient is asked for as of any other.
TEST_P(Conformance, WhatArrivesInAnyLayoutIsATensorOfItsOwn) {
  const Ends ends = make(3);
  const at::Tensor square = at::rand({6, 6});
  const std::vector<at::Tensor> sent{square.t(), square.select(1, 2), square.slice(0, 0, 6, 2),
                                     square[0].expand({2, 6}), square.view({36}).unfold(0, 4, 2)};
  for (const bool requires_gradient : {false, true}) {
    std::vector<at::Tensor> leaves;
    leaves.reserve(sent.size());
    for (const at::Tensor& tensor : sent) leaves.push_back(tensor.detach().requires_grad_(requires_gradient));
    ends[0]->send({2}, activation(0), leaves);
    for (const at::Tensor& tensor : ends[2]->receive({0}, activation(0))) {
      EXPECT_TRUE(tensor.is_leaf());
      EXPECT_EQ(tensor.requires_grad(), requires_gradient);
      if (requires_gradient) (tensor * 2).sum().backward();
      EXPECT_EQ(tensor.grad().defined(), requires_gradient);
    }
  }
}

TEST_P(Conformance, AMessageHoldsAnyNumberOfTensors) {
  const Ends ends = make(3);
  std::int32_t microbatch = 0;
  for (const std::int64_t count : {0, 70, 300, 1000, 20'000, 1}) {
    std::vector<at::Tensor> sent;
    sent.reserve(static_cast<std::size_t>(count));
    for (std::int64_t index = 0; index < count; ++index)
      sent.push_back(index % 9 == 4 ? at::Tensor() : at::arange(index % 5 * 3, index % 5 * 3 + 6).view({2, 3}).t());
    // Twice: then as layouts that are remembered.
    for (int round = 0; round < 2; ++round) {
      ends[0]->send({2}, activation(++microbatch), sent);
      const auto got = ends[2]->receive({0}, activation(microbatch));
      ASSERT_EQ(std::ssize(got), count);
      for (std::size_t index = 0; index < got.size(); ++index)
        ASSERT_NO_FATAL_FAILURE(expect_same(got[index], sent[index], ""));
    }
  }
}

// Threads hand over references, and so all that there is. What a link refuses it refuses at once, and goes on.
TEST_P(Conformance, WhatIsRefusedIsHeardOfByEveryRankAtOnceAndNothingOfItIsSent) {
  const std::vector<std::pair<std::string, std::vector<at::Tensor>>> refused{
      {"Sparse", {at::ones({3}), at::eye(3).to_sparse()}},
      {"QInt8", {at::ones({4}), at::_empty_affine_quantized({3}, at::kQInt8, 0.1, 0)}},
      {"meta", {at::ones({5}), at::empty({3}, at::kMeta)}},
      {"65 dimensions", {at::ones({6}), at::ones({1}).expand(std::vector<std::int64_t>(65, 1))}},
      {"Bits8", {at::ones({7}), at::empty({3}, at::ScalarType::Bits8)}},
      {"65536 tensors", std::vector<at::Tensor>(65'536)}};
  const Ends ends = make(4);
  if (!between_processes()) return;
  // The first of its channel, and one whose layouts the other knows.
  for (int round = 0; round < 2; ++round) {
    for (const auto& [name, message] : refused) EXPECT_THAT(refusal(*ends[0], message), testing::HasSubstr(name));
    ends[0]->send({3}, activation(round), {at::full({2}, round)});
    EXPECT_TRUE(at::equal(ends[3]->receive({0}, activation(round)).at(0), at::full({2}, round)));
  }
  run(ends, [&](Transport& end) {
    try {
      if (end.rank() == RankId{0}) {
        end.send({3}, activation(9), refused.front().second);
      } else {
        static_cast<void>(end.receive({0}, activation(9)));
      }
      ADD_FAILURE() << "expected an error";
    } catch (const Aborted& aborted) {
      EXPECT_THAT(aborted.what(), testing::HasSubstr("a tensor of the layout Sparse"));
      EXPECT_FALSE(aborted.peer_is_lost());
    } catch (const Error& error) {
      EXPECT_EQ(end.rank(), RankId{0});
      end.abort(error.what());
    }
  });
}

TEST_P(Conformance, MoreThanIsTakenAtOnceIsKept) {
  const Ends ends = make(2);
  constexpr std::int32_t count = 64;
  constexpr std::int64_t size = 100'000;
  // Nobody receives yet, and no send waits.
  for (std::int32_t index = 0; index < count; ++index) {
    ends[0]->send({1}, activation(index), {at::full({size}, index)});
    ends[1]->send({0}, activation(index), {at::full({size}, -index)});
  }
  for (std::int32_t index = count - 1; index >= 0; --index) {
    EXPECT_TRUE(at::equal(ends[1]->receive({0}, activation(index)).front(), at::full({size}, index)));
    EXPECT_TRUE(at::equal(ends[0]->receive({1}, activation(index)).front(), at::full({size}, -index)));
  }
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

TEST_P(Conformance, SaysWhenAMessageCame) {
  const Ends ends = make(2);
  const SteadyClock clock;
  run(ends, [&](Transport& end) {
    const RankId other{1 - end.rank().value};
    end.send(other, activation(0), {at::ones({1})});
    end.send(other, activation(1), {at::ones({1})});
    static_cast<void>(end.receive(other, activation(1)));
    const Milliseconds second = end.last_arrival();
    EXPECT_LE(second, clock.now());
    // It came before the one that was sent after it, and was asked for later.
    static_cast<void>(end.receive(other, activation(0)));
    EXPECT_LE(end.last_arrival(), second);
    EXPECT_GT(end.last_arrival().count, 0);
  });
}

TEST_P(Conformance, AReceiverThatIsNowEarlyAndNowLateGetsEverything) {
  const Ends ends = make(2);
  run(ends, [](Transport& end) {
    const RankId other{1 - end.rank().value};
    for (std::int32_t index = 0; index < 100; ++index) {
      // Up to several times what any thread of a transport leaves to another.
      const std::int32_t late = (index * 7 + end.rank().value * 5) % 11;
      if (late > 5) std::this_thread::sleep_for(std::chrono::microseconds(500 * (late - 5)));
      end.send(other, activation(index), {at::full({3}, index)});
      if (late % 3 == 1) static_cast<void>(end.has_arrived(other, activation(index)));
      ASSERT_TRUE(at::equal(end.receive(other, activation(index)).front(), at::full({3}, index)));
    }
  });
}

// Counts what libtorch's allocator gives a thread, as a rank's meter does.
struct Counted final : c10::MemoryReportingInfoBase {
  std::int64_t bytes = 0;
  void reportMemoryUsage(void* /*pointer*/, std::int64_t size, std::size_t /*allocated*/, std::size_t /*reserved*/,
                         c10::Device /*device*/) override {
    bytes += size;
  }
  [[nodiscard]] bool memoryProfilingEnabled() const override { return true; }
};

// Whoever receives counts the message itself: otherwise what it holds would depend on the transport, and on whether it
// had to wait.
TEST_P(Conformance, AMessageIsNotAllocatedInTheNameOfItsReceiver) {
  const Ends ends = make(2);
  constexpr std::int64_t size = 50'000;
  run(ends, [&](Transport& end) {
    if (end.rank() == RankId{0}) {
      // The receiver waits by then.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      const at::Tensor table = at::ones({size, 3});
      end.send({1}, activation(0),
               {at::ones({size}), table.t(), table.select(1, 1), table.select(0, 1).expand({size, 3}),
                at::ones({size}).unfold(0, 8, 3)});
      return;
    }
    const auto counted = std::make_shared<Counted>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counted);
    const auto message = end.receive({0}, activation(0));
    EXPECT_EQ(message.front().numel(), size);
    EXPECT_EQ(counted->bytes, 0);
  });
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

// Processes that here live in one. They end together, as each waits for the others.
struct Groups {
  Groups() = default;
  Groups(const Groups&) = delete;
  Groups& operator=(const Groups&) = delete;
  Groups(Groups&&) = delete;
  Groups& operator=(Groups&&) = delete;
  ~Groups() {
    std::vector<std::thread> threads;
    threads.reserve(all.size());
    for (auto& group : all) threads.emplace_back([&group] { group.reset(); });
    for (std::thread& thread : threads) thread.join();
  }
  std::vector<std::unique_ptr<ProcessGroup>> all;
};

class GroupedEnd final : public Transport {
 public:
  GroupedEnd(std::shared_ptr<Groups> groups, std::unique_ptr<Transport> end)
      : groups_(std::move(groups)), end_(std::move(end)) {}
  [[nodiscard]] RankId rank() const override { return end_->rank(); }
  [[nodiscard]] int ranks() const override { return end_->ranks(); }
  void send(RankId to, const Tag& tag, std::vector<at::Tensor> message) override {
    end_->send(to, tag, std::move(message));
  }
  [[nodiscard]] std::vector<at::Tensor> receive(RankId from, const Tag& tag) override {
    return end_->receive(from, tag);
  }
  [[nodiscard]] Milliseconds last_arrival() const override { return end_->last_arrival(); }
  [[nodiscard]] bool has_arrived(RankId from, const Tag& tag) override { return end_->has_arrived(from, tag); }
  void abort(const std::string& reason) noexcept override { end_->abort(reason); }

 private:
  std::shared_ptr<Groups> groups_;
  std::unique_ptr<Transport> end_;
};

// Gloo in place of NCCL, on the host in place of devices: every tensor goes beside the frames.
DirectBackend stand_in_for_nccl() {
  const auto devices = std::make_shared<std::atomic<int>>(0);
  return {[devices](at::Device) { return fmt::format("device {}", (*devices)++); },
          [](const c10::intrusive_ptr<c10d::Store>& store, int member) {
            ProcessSettings pair;
            pair.process = member;
            pair.processes = 2;
            pair.own_address = "127.0.0.1";
            return make_backend(pair, store);
          }};
}

Ends make_processes(int ranks, int ranks_per_process, bool shared_memory,
                    const std::optional<DirectBackend>& direct = std::nullopt) {
  ProcessSettings settings;
  settings.shared_memory = shared_memory;
  settings.processes = (ranks + ranks_per_process - 1) / ranks_per_process;
  settings.ranks = ranks;
  const int socket = listen_on(settings.address, 0);
  settings.port = port_of(socket);
  const auto groups = std::make_shared<Groups>();
  groups->all.resize(static_cast<std::size_t>(settings.processes));
  std::vector<std::thread> threads;
  for (settings.process = 0; settings.process < settings.processes; ++settings.process) {
    settings.listening_socket = settings.process == 0 ? socket : -1;
    if (direct) {
      const auto [first, end] = ranks_of_process(settings.process, settings.processes, ranks);
      settings.devices.assign(end.index() - first.index(), "cpu");
    }
    threads.emplace_back([settings, &direct, &group = groups->all[static_cast<std::size_t>(settings.process)]] {
      group = direct ? std::make_unique<ProcessGroup>(settings, *direct) : std::make_unique<ProcessGroup>(settings);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Ends ends;
  for (const auto& group : groups->all)
    for (auto& end : group->take_ends()) ends.push_back(std::make_unique<GroupedEnd>(groups, std::move(end)));
  return ends;
}

INSTANTIATE_TEST_SUITE_P(
    Transports, Conformance,
    testing::Values(
        std::pair<const char*, Factory>{"inproc", [](int ranks) { return make_inproc_transport(ranks); }},
        std::pair<const char*, Factory>{"inproc_spinning",
                                        [](int ranks) { return make_inproc_transport(ranks, {200}); }},
        std::pair<const char*, Factory>{"c10d", [](int ranks) { return make_processes(ranks, 1, false); }},
        std::pair<const char*, Factory>{"c10d_mixed", [](int ranks) { return make_processes(ranks, 2, false); }},
        std::pair<const char*, Factory>{"shared_memory", [](int ranks) { return make_processes(ranks, 1, true); }},
        std::pair<const char*, Factory>{"direct",
                                        [](int ranks) { return make_processes(ranks, 1, false, stand_in_for_nccl()); }},
        std::pair<const char*, Factory>{"direct_mixed",
                                        [](int ranks) { return make_processes(ranks, 2, true, stand_in_for_nccl()); }}),
    [](const auto& instance) { return instance.param.first; });

}  // namespace
}  // namespace penstock
