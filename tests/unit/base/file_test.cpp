#include "penstock/base/file.h"

#include <gtest/gtest.h>
#include <string>

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
