/// \file
/// What the tests of this room share: files to open and the message of an error.
#pragma once

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <string_view>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/data/dataset.h"

namespace penstock {

/// A fresh folder for each test.
class DataTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / "penstock" / info->test_suite_name() / info->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

  /// Writes a file below the folder, with the folders that it lies in.
  [[nodiscard]] std::filesystem::path write(const std::string& name, std::string_view content) const {
    const auto path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

 private:
  std::filesystem::path folder_;
};

/// The message of the Error (BadInput) that opening gives; fails the test where it gives none.
inline std::string refusal_of(const DataSettings& settings) {
  try {
    static_cast<void>(open_data(settings));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "more than one line: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return {};
}

}  // namespace penstock
