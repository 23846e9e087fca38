// TensorBoard's event files; tests/dist/monitoring_test.py reads them with the real package.
#include "penstock/monitoring/event_file.h"

#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

namespace penstock::event_file_test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

class EventFiles : public testing::Test {
 protected:
  EventFiles() : folder_(fs::path(testing::TempDir()) / fmt::format("events_{}", ::getpid())) {
    fs::remove_all(folder_);
  }
  ~EventFiles() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string content() const { return read_file(folder_ / "events.out.tfevents.0.penstock"); }
  void write_steps(std::int64_t last_step, std::int64_t first, std::int64_t end) const {
    EventFile events(folder_, last_step);
    for (std::int64_t step = first; step < end; ++step) events.add(step, 1.5, {{"loss", "training_loss", "", 0.5}});
  }

  fs::path folder_;
};

TEST(Crc32c, IsThatOfRfc3720) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
}

TEST_F(EventFiles, AnEventIsWrittenAsProtobufHasIt) {
  EventFile(folder_, 0).add(300, 2.0, {{"loss", "training_loss", "", 1.0, 3}});
  const std::string event(
      "\x09\x00\x00\x00\x00\x00\x00\x00\x40\x10\xac\x02\x2a\x22\x0a\x20\x0a\x19loss/training_loss/rank_3"
      "\x15\x00\x00\x80\x3f",
      48);
  EXPECT_THAT(content(), HasSubstr(event));
}

TEST_F(EventFiles, AResumedRunHasEachStepOnce) {
  write_steps(0, 1, 6);
  const std::string whole = content();
  write_steps(3, 4, 6);
  EXPECT_EQ(content(), whole);
}

TEST_F(EventFiles, ATornRecordIsDropped) {
  write_steps(0, 1, 4);
  const std::string whole = content();
  std::ofstream(folder_ / "events.out.tfevents.0.penstock", std::ios::app | std::ios::binary) << whole.substr(50, 20);
  write_steps(3, 4, 4);
  EXPECT_EQ(content(), whole);
}

TEST_F(EventFiles, AFolderThatCannotBeMadeIsSaid) {
  EXPECT_THAT([] { const EventFile events("/proc/nowhere", 0); },
              ThrowsMessage<Error>(HasSubstr("cannot make the folder /proc/nowhere")));
}

}  // namespace
}  // namespace penstock::event_file_test
