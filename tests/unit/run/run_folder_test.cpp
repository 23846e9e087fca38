// The folder of a run: who may have it, and what it keeps.
#include "run/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>
#include <string>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

namespace penstock::run_folder_test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() : out_(fs::path(testing::TempDir()) / ("run_folder_" + std::to_string(::getpid()))) {
    fs::remove_all(out_);
  }
  ~RunFolderTest() override { fs::remove_all(out_); }

  static StepMetrics step(std::int64_t number) {
    StepMetrics metrics;
    metrics.step = number;
    metrics.loss = 0.5;
    metrics.tokens = 100 * number;
    return metrics;
  }
  [[nodiscard]] std::string metrics() const { return read_file(out_ / "metrics.jsonl"); }
  [[nodiscard]] static std::int64_t lines(const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  }

  fs::path out_;
};

TEST_F(RunFolderTest, NothingIsWrittenBeforeItIsOpened) {
  const RunFolder folder(out_, /*resume=*/false);
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(RunFolderTest, AnotherRunIsNotWrittenOver) {
  RunFolder(out_, false).open({}, 0);
  EXPECT_THAT([&] { const RunFolder again(out_, false); }, ThrowsMessage<Error>(HasSubstr("holds another run")));
  const RunFolder resumed(out_, true);
  const fs::path file = out_ / "config.toml";
  EXPECT_THAT([&] { const RunFolder in_file(file, true); }, ThrowsMessage<Error>(HasSubstr("a file")));
}

TEST_F(RunFolderTest, OneProcessAtATimeHasIt) {
  RunFolder first(out_, false);
  first.open({}, 0);
  RunFolder second(out_, true);
  EXPECT_THAT([&] { second.open({}, 0); }, ThrowsMessage<Error>(HasSubstr("another process trains in")));
}

TEST_F(RunFolderTest, MetricsGoOnBehindTheCheckpointAndTornLinesAreLeftOut) {
  {
    RunFolder folder(out_, false);
    folder.open({}, 0);
    for (std::int64_t number = 1; number <= 5; ++number) folder.append(step(number));
    folder.sync_metrics();
  }
  std::ofstream(out_ / "metrics.jsonl", std::ios::app) << R"({"step": 3, "loss)";
  RunFolder resumed(out_, true);
  resumed.open({}, 3);
  EXPECT_EQ(resumed.tokens(), 300);
  EXPECT_EQ(lines(metrics()), 3);
  resumed.append(step(4));
  EXPECT_EQ(lines(metrics()), 4);
  EXPECT_THAT(metrics(), HasSubstr(R"({"step":4,)"));
}

}  // namespace
}  // namespace penstock::run_folder_test
