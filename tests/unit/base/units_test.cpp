#include <gtest/gtest.h>

#include "penstock/base/types.h"

namespace penstock {
namespace {

TEST(Units, BytesPrintWithAtMostThreeFigures) {
  EXPECT_EQ(to_string(Bytes{7}), "7 B");
  EXPECT_EQ(to_string(Bytes{1536}), "1.5 KiB");
  EXPECT_EQ(to_string(Bytes{1023LL * 1024}), "0.999 MiB");
  EXPECT_EQ(to_string(Bytes{12LL << 30}), "12 GiB");
}

TEST(Units, DurationsPrintInTheUnitThatAReaderWouldChoose) {
  EXPECT_EQ(to_string(Milliseconds{12.34}), "12.3 ms");
  EXPECT_EQ(to_string(Milliseconds{4560}), "4.56 s");
  EXPECT_EQ(to_string(Milliseconds{59'999}), "1 min 00 s");
  EXPECT_EQ(to_string(Milliseconds{3'720'000}), "1 h 02 min");
  EXPECT_EQ(to_string(Milliseconds{172'799'000}), "47 h 59 min");
  EXPECT_EQ(to_string(Milliseconds{172'800'000}), "2 days");
}

}  // namespace
}  // namespace penstock
