#include "penstock/base/parse_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

TEST(ParseBytes, TakesDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_bytes("--memory", "12GiB").count, std::int64_t{12} << 30U);
  EXPECT_EQ(parse_bytes("--memory", "1.5 KiB").count, 1536);
  EXPECT_EQ(parse_bytes("--memory", "500MB").count, 500'000'000);
  EXPECT_EQ(parse_bytes("--memory", "7B").count, 7);
}

TEST(ParseBytes, RefusesWhatIsNoSizeAndNamesTheSetting) {
  for (const char* text : {"", "12", "GiB", "-1GiB", "0MB", "12 gib", "1e30GB", "nanB", "0.1B"}) {
    try {
      static_cast<void>(parse_bytes("--memory-limit", text));
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
      EXPECT_THAT(error.what(), testing::AllOf(testing::StartsWith("--memory-limit is \""), testing::HasSubstr("12GiB"),
                                               testing::Not(testing::HasSubstr("\n"))));
    }
  }
}

}  // namespace
}  // namespace penstock
