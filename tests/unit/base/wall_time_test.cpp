#include <gtest/gtest.h>

#include "penstock/base/types.h"

namespace penstock {
namespace {

TEST(WallTime, ItsTextGivesItBack) {
  for (const std::int64_t milliseconds : {std::int64_t{0}, std::int64_t{1'764'408'658'123},
                                          std::int64_t{951'782'399'999}, std::int64_t{4'102'444'800'000}}) {
    const WallTime time{std::chrono::milliseconds(milliseconds)};
    EXPECT_EQ(parse_wall_time(to_string(time)), time) << to_string(time);
  }
  EXPECT_EQ(to_string(WallTime{std::chrono::milliseconds(951'782'400'007)}), "2000-02-29T00:00:00.007Z");
  EXPECT_EQ(parse_wall_time("2000-02-29T00:00:00Z"), WallTime{std::chrono::milliseconds(951'782'400'000)});
  EXPECT_LT(WallTime{}, wall_time_now());
}

TEST(WallTime, WhatIsNoneIsNothing) {
  for (const char* text :
       {"", "now", "2000-02-30T00:00:00Z", "2000-02-29T24:00:00Z", "2000-02-29 00:00:00Z", "2000-02-29T00:00:00",
        "2000-02-29T00:00:00.1Z", "2000-02-29T00:00:00.123Zz", "2000-02-29T00:-1:00Z", "20000-02-29T00:00:00Z"})
    EXPECT_EQ(parse_wall_time(text), std::nullopt) << text;
}

}  // namespace
}  // namespace penstock
