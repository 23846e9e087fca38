#include "penstock/base/scratch_folder.h"

#include <gtest/gtest.h>
#include <iterator>
#include <string>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

namespace penstock::scratch_folder_test {
namespace {

namespace fs = std::filesystem;

fs::path fresh_folder() {
  fs::path folder = fs::path(testing::TempDir()) / ("scratch-" + std::to_string(::getpid())) /
                    testing::UnitTest::GetInstance()->current_test_info()->name();
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

std::ptrdiff_t entries_of(const fs::path& folder) { return std::distance(fs::directory_iterator(folder), {}); }

TEST(ScratchFolder, NothingHasTheNameBeforeItIsPublished) {
  const fs::path above = fresh_folder();
  const fs::path target = above / "new" / "model";
  {
    ScratchFolder folder = ScratchFolder::beside(target);
    EXPECT_EQ(folder.path().parent_path(), target.parent_path()) << "on another file system it could not be renamed";
    write_file_atomically(folder.path() / "a.txt", "whole");
    EXPECT_FALSE(fs::exists(target));
    folder.publish_as(target);
    EXPECT_EQ(read_file(target / "a.txt"), "whole");
  }
  EXPECT_EQ(read_file(target / "a.txt"), "whole") << "it stays when the object goes";
  EXPECT_EQ(entries_of(target.parent_path()), 1);
}

TEST(ScratchFolder, NothingIsLeftOfOneThatIsNotPublished) {
  const fs::path above = fresh_folder();
  try {
    const ScratchFolder folder = ScratchFolder::beside(above / "model");
    write_file_atomically(folder.path() / "a.txt", "half");
    EXPECT_EQ(entries_of(above), 1);
    throw run_failed("the disk is full", "space", "make some");
  } catch (const Error&) {
    EXPECT_EQ(entries_of(above), 0);
  }
}

TEST(ScratchFolder, WhatIsThereIsNotReplacedUnlessItIsEmpty) {
  const fs::path above = fresh_folder();
  const fs::path target = above / "model";
  fs::create_directory(target);
  {
    ScratchFolder folder = ScratchFolder::beside(target / "");
    write_file_atomically(folder.path() / "a.txt", "first");
    folder.publish_as(target / "");
  }
  {
    ScratchFolder folder = ScratchFolder::beside(target);
    write_file_atomically(folder.path() / "a.txt", "second");
    EXPECT_THROW(folder.publish_as(target), Error);
  }
  EXPECT_EQ(read_file(target / "a.txt"), "first");
  EXPECT_EQ(entries_of(above), 1);
}

TEST(ScratchFolder, TwoOfOneProcessAreTwo) {
  const fs::path target = fresh_folder() / "model";
  const ScratchFolder one = ScratchFolder::beside(target);
  const ScratchFolder other = ScratchFolder::beside(target);
  EXPECT_NE(one.path(), other.path());
}

TEST(ScratchFolder, TemporaryFilesAreGoneAfterwards) {
  fs::path path;
  {
    const ScratchFolder folder("penstock-test");
    path = folder.path();
    write_file_atomically(path / "a.txt", "for a moment");
    EXPECT_EQ(path.parent_path(), fs::temp_directory_path());
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(ScratchFolder, APlaceThatCannotBeWrittenIsNamed) {
  const fs::path file = fresh_folder() / "file";
  write_file_atomically(file, "");
  try {
    static_cast<void>(ScratchFolder::beside(file / "model"));
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::RunFailed);
    EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace penstock::scratch_folder_test
