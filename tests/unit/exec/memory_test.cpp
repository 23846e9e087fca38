#include "penstock/exec/memory.h"

#include <cstdint>
#include <gmock/gmock.h>
#include <string>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <torch/csrc/profiler/orchestration/observer.h>

#include "penstock/base/error.h"

#include "drawn_cases.h"

namespace penstock {
namespace {

TEST(Memory, CountsWhatItsThreadHoldsAndHeldAtMost) {
  MemoryMeter meter;
  {
    const at::Tensor big = at::empty({1024}, at::kFloat);
    EXPECT_GE(meter.held(), Bytes{4096});
    EXPECT_LT(meter.held(), Bytes{4096 + 512});
  }
  EXPECT_EQ(meter.held(), Bytes{0});
  EXPECT_GE(meter.peak(), Bytes{4096});
  meter.reset_peak();
  EXPECT_EQ(meter.peak(), Bytes{0});
}

// libtorch asks whoever listens to a thread's allocations for a profiler's settings, as for an autograd function of
// Python.
TEST(Memory, NoMeterIsTakenForAProfiler) {
  const MemoryMeter meter;
  EXPECT_FALSE(torch::profiler::impl::profilerEnabled());
  EXPECT_TRUE(torch::profiler::impl::getProfilerConfig().disabled());
  EXPECT_EQ(torch::profiler::impl::profilerType(), torch::profiler::impl::ActiveProfilerType::NONE);
  const UncountedMemory uncounted;
  EXPECT_FALSE(torch::profiler::impl::profilerEnabled());
  EXPECT_TRUE(torch::profiler::impl::getProfilerConfig().disabled());
}

TEST(Memory, CountsEveryByteOnce) {
  const MemoryMeter meter;
  at::Tensor odd = at::empty({13}, at::kByte);
  EXPECT_EQ(meter.held(), Bytes{13});
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(odd.data_ptr()) % 64, 0U);
  EXPECT_EQ(at::empty({0}).numel(), 0);
  EXPECT_EQ(meter.held(), Bytes{13});
  odd.reset();
  EXPECT_EQ(meter.held(), Bytes{0});
  EXPECT_EQ(meter.peak(), Bytes{13});
}

// As a message that was received: what is taken over counts until it is freed, wherever that is.
TEST(Memory, WhatWasMadeElsewhereCountsFromWhenItIsTakenOver) {
  MemoryMeter meter;
  at::Tensor elsewhere;
  std::thread([&] { elsewhere = at::empty({1024}, at::kByte); }).join();
  EXPECT_EQ(meter.held(), Bytes{0});
  meter.take_over({elsewhere, at::Tensor(), elsewhere.narrow(0, 10, 20)});
  EXPECT_EQ(meter.held(), Bytes{1024});
  EXPECT_EQ(meter.peak(), Bytes{1024});
  std::thread([&] { elsewhere.reset(); }).join();
  EXPECT_EQ(meter.held(), Bytes{0});
}

TEST(Memory, WhatIsHandedOverCountsNoMore) {
  const MemoryMeter meter;
  at::Tensor tensor = at::empty({1024}, at::kByte);
  EXPECT_EQ(meter.held_in({tensor.slice(0, 0, 3), tensor}), Bytes{1024});
  MemoryMeter::hand_over({tensor.slice(0, 0, 3)});
  EXPECT_EQ(meter.held(), Bytes{0});
  EXPECT_EQ(meter.held_in({tensor}), Bytes{0});
  tensor.reset();
  EXPECT_EQ(meter.held(), Bytes{0});
}

TEST(Memory, WhatOutlivesItsMeterIsFreedAndNobodyElseCountsIt) {
  at::Tensor longer;
  {
    const MemoryMeter meter;
    longer = at::empty({1024}, at::kByte);
  }
  const MemoryMeter other;
  EXPECT_EQ(other.held(), Bytes{0});
  longer.reset();
  EXPECT_EQ(other.held(), Bytes{0});
}

TEST(Memory, MemoryThatIsNotOursCountsNowhere) {
  MemoryMeter meter;
  std::vector<float> own(16);
  const at::Tensor tensor = at::from_blob(own.data(), {16}, at::kFloat);
  meter.take_over({tensor});
  EXPECT_EQ(meter.held(), Bytes{0});
}

// libtorch would say "Memory block of unknown size was allocated before the profiling started".
TEST(Memory, WhatWasThereBeforeTheFirstMeterIsFreedWithoutAWord) {
  c10::DataPtr before = c10::GetDefaultCPUAllocator()->allocate(64);
  const MemoryMeter meter;
  testing::internal::CaptureStderr();
  before.clear();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(meter.held(), Bytes{0});
}

TEST(Memory, WhatIsUncountedStaysSo) {
  const MemoryMeter meter;
  at::Tensor told;
  {
    const UncountedMemory uncounted;
    told = at::empty({1024}, at::kByte);
  }
  const at::Tensor counted = at::empty({8}, at::kByte);
  EXPECT_EQ(meter.held(), Bytes{8});
  told.reset();
  EXPECT_EQ(meter.held(), Bytes{8});
}

TEST(Memory, BeyondTheLimitNothingIsTakenOver) {
  MemoryMeter meter({1000});
  at::Tensor elsewhere;
  std::thread([&] { elsewhere = at::empty({1001}, at::kByte); }).join();
  EXPECT_THROW(meter.take_over({elsewhere}), Error);
  EXPECT_EQ(meter.held(), Bytes{0});
}

TEST(Memory, WhatIsRefusedIsNotHeld) {
  const MemoryMeter meter({1000});
  EXPECT_THROW(static_cast<void>(at::empty({1001}, at::kByte)), Error);
  EXPECT_EQ(meter.held(), Bytes{0});
  EXPECT_EQ(at::empty({1000}, at::kByte).numel(), 1000);
  EXPECT_EQ(meter.peak(), Bytes{1000});
}

TEST(Memory, MoreThanTheMachineHasIsAnErrorOfOneLine) {
  if (instrumented) GTEST_SKIP() << "sanitizers end the program where so much is asked for";
  const MemoryMeter meter;
  try {
    static_cast<void>(at::empty({std::int64_t{1} << 60}, at::kByte));
    FAIL() << "got 2^60 bytes";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("no memory for "));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
  EXPECT_EQ(meter.held(), Bytes{0});
}

TEST(Memory, DoesNotCountOtherThreads) {
  const MemoryMeter meter;
  at::Tensor elsewhere;
  std::thread([&] { elsewhere = at::empty({1024}, at::kFloat); }).join();
  EXPECT_EQ(meter.held(), Bytes{0});
}

}  // namespace
}  // namespace penstock
