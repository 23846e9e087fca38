#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <thread>

#include "penstock/run/train.h"

namespace penstock {
namespace {

TEST(ProgressLines, OnlyTheRanksOfThisMachineShareItsCores) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (cores < 2) GTEST_SKIP() << "one core";
  std::string written;
  Progress progress([&](std::string_view text) { written += text; }, /*terminal=*/false);
  TrainStart start;
  start.ranks = 8 * cores;
  start.ranks_here = 1;
  start.threads_per_rank = 1;
  progress.start(start);
  EXPECT_THAT(written, testing::HasSubstr(fmt::format("threads-per-rank {} may be", cores)));
}

}  // namespace
}  // namespace penstock
