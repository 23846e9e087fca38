#include "penstock/exec/memory.h"

#include <gtest/gtest.h>
#include <thread>

#include <ATen/ATen.h>

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

TEST(Memory, DoesNotCountOtherThreads) {
  const MemoryMeter meter;
  at::Tensor elsewhere;
  std::thread([&] { elsewhere = at::empty({1024}, at::kFloat); }).join();
  EXPECT_EQ(meter.held(), Bytes{0});
}

TEST(Memory, BytesThatMoveCountWhereTheyGo) {
  MemoryMeter meter;
  meter.moved({100});
  EXPECT_EQ(meter.held(), Bytes{100});
  meter.moved({-100});
  EXPECT_EQ(meter.held(), Bytes{0});
  EXPECT_EQ(meter.peak(), Bytes{100});
}

}  // namespace
}  // namespace penstock
