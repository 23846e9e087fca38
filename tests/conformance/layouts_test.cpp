// In which layouts tensors arrive: the second part of what every transport must do.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "conformance/conformance.h"
#include "transport/strided_tensor.h"
#include "unit/transport/strided_tensors.h"

namespace penstock::conformance {
namespace {

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
    ends[0]->send({1}, tag_a(round), message);
    const auto got = ends[1]->receive({0}, tag_a(round));
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
      ends[0]->send({2}, tag_a(++microbatch), {tensor});
      const at::Tensor got = ends[2]->receive({0}, tag_a(microbatch)).at(0);
      expect_same(got, tensor, name);
      // What a receiver counts: the span, and nothing of what else the sender's storage holds.
      if (between_processes()) {
        EXPECT_EQ(got.storage().nbytes(), extent_of(tensor).span * tensor.itemsize()) << name;
      }
      together.push_back(tensor);
    }
    // All in one message, and as the layouts that are remembered.
    for (int round = 0; round < 2; ++round) {
      ends[0]->send({2}, {kind_b, 1, 0}, together);
      const auto got = ends[2]->receive({0}, {kind_b, 1, 0});
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
  ends[0]->send({2}, tag_a(0), sent);
  const auto got = ends[2]->receive({0}, tag_a(0));
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
  ends[0]->send({2}, tag_a(0), sent);
  const auto got = ends[2]->receive({0}, tag_a(0));
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
    ends[0]->send({2}, tag_a(0), leaves);
    for (const at::Tensor& tensor : ends[2]->receive({0}, tag_a(0))) {
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
      ends[0]->send({2}, tag_a(++microbatch), sent);
      const auto got = ends[2]->receive({0}, tag_a(microbatch));
      ASSERT_EQ(std::ssize(got), count);
      for (std::size_t index = 0; index < got.size(); ++index)
        ASSERT_NO_FATAL_FAILURE(expect_same(got[index], sent[index], ""));
    }
  }
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
      end.send({1}, tag_a(0),
               {at::ones({size}), table.t(), table.select(1, 1), table.select(0, 1).expand({size, 3}),
                at::ones({size}).unfold(0, 8, 3)});
      return;
    }
    const auto counted = std::make_shared<Counted>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counted);
    const auto message = end.receive({0}, tag_a(0));
    EXPECT_EQ(message.front().numel(), size);
    EXPECT_EQ(counted->bytes, 0);
  });
}

}  // namespace
}  // namespace penstock::conformance
