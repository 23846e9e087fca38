#include "penstock/base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

std::filesystem::path fresh_folder() {
  std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

TEST(File, ReplacesTheWholeContentAndLeavesNothingElse) {
  const auto folder = fresh_folder();
  write_file_atomically(folder / "a.txt", "long content");
  write_file_atomically(folder / "a.txt", "short");
  EXPECT_EQ(read_file(folder / "a.txt"), "short");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
}

TEST(File, ALinkStaysALinkAndADeviceADevice) {
  const auto folder = fresh_folder();
  write_file_atomically(folder / "a.txt", "old");
  std::filesystem::create_symlink("a.txt", folder / "link");
  write_file_atomically(folder / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "a.txt"), "new");
  // A pipe of the test's own stands for /dev/null and its like, which a failure here would replace for everybody.
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const int reader = ::open((folder / "pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  write_file_atomically(folder / "pipe", "through");
  EXPECT_TRUE(std::filesystem::is_fifo(folder / "pipe"));
  std::string read(7, ' ');
  EXPECT_EQ(::read(reader, read.data(), read.size()), 7);
  EXPECT_EQ(read, "through");
  ::close(reader);
}

TEST(File, AFolderIsNotReplacedAndNothingIsLeft) {
  const auto folder = fresh_folder();
  std::filesystem::create_directories(folder / "kept");
  EXPECT_THROW(write_file_atomically(folder / "kept", "x"), Error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
}

TEST(File, AFullDiskIsAnErrorThatNamesTheFile) {
  FileWriter writer("/dev/full");
  const std::string content(8192, 'x');
  try {
    writer.write(content.data(), content.size());
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::RunFailed);
    EXPECT_NE(std::string(error.what()).find("/dev/full"), std::string::npos);
  }
}

TEST(File, AMissingFileAndAFolderAreBadInput) {
  const auto folder = fresh_folder();
  for (const auto& path : {folder / "none", folder}) {
    try {
      static_cast<void>(read_file(path));
      FAIL() << "expected an Error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    }
  }
}

}  // namespace
}  // namespace penstock
