/// \file
/// What the tests of this room share: a folder of their own, tensors to save and the message of an error.
#pragma once

#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"

namespace penstock {

/// A fresh folder for each test.
class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / "penstock" / info->test_suite_name() / info->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

  [[nodiscard]] std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
  }

 private:
  std::filesystem::path folder_;
};

/// The message of the Error that `call` throws; fails the test where it throws none.
template <class Call>
std::string message_of(Call&& call, ErrorKind kind = ErrorKind::BadInput) {
  try {
    std::forward<Call>(call)();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "more than one line: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return {};
}

/// What stage `stage` of step `step` holds: told apart from every other by its numbers.
inline std::vector<NamedTensor> stage_tensors(std::int64_t step, int stage, std::int64_t numbers = 1000) {
  const double first = static_cast<double>(step) * 10 + stage;
  return {{"layers." + std::to_string(stage) + ".weight", at::arange(numbers, at::kFloat) + first},
          {"optimizer.layers." + std::to_string(stage) + ".weight.m", at::full({3, 5}, first, at::kDouble)},
          {"optimizer.layers." + std::to_string(stage) + ".step", at::scalar_tensor(step, at::kLong)}};
}

inline void write_checkpoint(const std::filesystem::path& folder, std::int64_t step, int stages = 2,
                             std::int64_t numbers = 1000) {
  CheckpointWriter writer(folder, step);
  for (int stage = 0; stage < stages; ++stage)
    writer.own_part().write_stage({stage}, stage_tensors(step, stage, numbers));
  writer.commit(R"({"step": )" + std::to_string(step) + "}");
}

/// Fails the test unless the checkpoint holds what write_checkpoint wrote.
inline void expect_checkpoint(const CheckpointId& id, int stages = 2, std::int64_t numbers = 1000) {
  const CheckpointReader reader(id);
  EXPECT_EQ(reader.step(), id.step);
  EXPECT_EQ(reader.metadata(), R"({"step": )" + std::to_string(id.step) + "}");
  EXPECT_EQ(reader.names().size(), static_cast<std::size_t>(3 * stages));
  for (int stage = 0; stage < stages; ++stage)
    for (const NamedTensor& named : stage_tensors(id.step, stage, numbers))
      EXPECT_TRUE(reader.contains(named.name) && at::equal(reader.read(named.name), named.tensor)) << named.name;
}

}  // namespace penstock
