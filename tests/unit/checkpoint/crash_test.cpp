// What is left after a kill or a full disk: children write checkpoints and are stopped at moments that a seed chooses.
#include <array>
#include <chrono>
#include <csignal>
#include <gmock/gmock.h>
#include <random>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "penstock/base/file.h"

#include "checkpoint_fixture.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::Not;
using testing::StartsWith;

class Crash : public FolderTest {};

constexpr int stages = 3;
constexpr std::int64_t numbers = 20'000;

/// A child process that runs `work` and ends without unwinding. The parent's libtorch has run no parallel loop before,
/// so the child may use it.
template <class Work>
pid_t start(Work&& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 100;
    try {
      code = work();
    } catch (...) {
      code = 101;
    }
    ::_exit(code);
  }
  return child;
}

/// Checkpoint after checkpoint, from two threads each, telling each step's commit through `told` until it is killed.
[[noreturn]] void write_for_ever(const fs::path& folder, std::int64_t step, int told) {
  for (;; ++step) {
    {
      CheckpointWriter writer(folder, step);
      std::thread other([&] { writer.own_part().write_stage({1}, stage_tensors(step, 1, numbers)); });
      writer.own_part().write_stage({0}, stage_tensors(step, 0, numbers));
      writer.own_part().write_stage({2}, stage_tensors(step, 2, numbers));
      other.join();
      writer.commit(R"({"step": )" + std::to_string(step) + "}");
    }
    if (::write(told, &step, sizeof(step)) != sizeof(step)) ::_exit(102);
    keep_newest_checkpoints(folder, 2);
  }
}

TEST_F(Crash, KilledAtAnyMomentLeavesWholeCheckpointsOnly) {
  constexpr unsigned seed = 20'261;
  RecordProperty("seed", static_cast<int>(seed));
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> moment(0, 25'000);
  std::int64_t told = 0;
  write_checkpoint(folder(), told, stages, numbers);
  for (int round = 0; round < 30; ++round) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", round " + std::to_string(round));
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    const pid_t child = start([&]() -> int { write_for_ever(folder(), told + 1, pipe[1]); });
    ASSERT_GT(child, 0);
    ::close(pipe[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(moment(random)));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);
    std::int64_t step = 0;
    while (::read(pipe[0], &step, sizeof(step)) == sizeof(step)) told = step;
    ::close(pipe[0]);

    const auto whole = whole_checkpoints(folder());
    ASSERT_FALSE(whole.empty());
    EXPECT_GE(whole.front().step, told) << "a committed checkpoint is gone";
    for (const std::string& name : entries()) {
      if (name.starts_with('.')) continue;
      const CheckpointId id{std::stoll(name.substr(5)), folder() / name};
      EXPECT_THAT(whole, testing::Contains(id)) << "a part of a checkpoint under its final name";
      expect_checkpoint(id, stages, numbers);
    }
    std::vector<SkippedCheckpoint> skipped;
    EXPECT_EQ(latest_whole_checkpoint(folder(), &skipped), whole.front());
    EXPECT_THAT(skipped, testing::IsEmpty());
    told = whole.front().step;
  }
  write_checkpoint(folder(), told + 1, stages, numbers);
  EXPECT_THAT(entries(), testing::Each(StartsWith("step-"))) << "the next writer clears away what the killed ones left";
}

TEST_F(Crash, AFullDiskAtAnyByteLeavesTheEarlierOneAndNothingElse) {
  write_checkpoint(folder(), 1, stages);
  std::uintmax_t largest = 0;
  for (const auto& entry : fs::directory_iterator(folder() / "step-00000001"))
    largest = std::max(largest, entry.file_size());
  int failed = 0;
  for (rlim_t limit = 0; limit <= largest; limit += largest / 8) {
    SCOPED_TRACE("at most " + std::to_string(limit) + " bytes a file");
    const pid_t child = start([&] {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit most{limit, limit};
      if (::setrlimit(RLIMIT_FSIZE, &most) != 0) return 1;
      try {
        write_checkpoint(folder(), 2, stages);
        return 0;
      } catch (const Error& error) {
        return error.kind() == ErrorKind::RunFailed ? 3 : 4;
      }
    });
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    if (limit >= largest) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
      continue;
    }
    ++failed;
    EXPECT_EQ(WEXITSTATUS(status), 3) << "an Error that tells of a failed run";
    EXPECT_THAT(entries(), ElementsAre("step-00000001"));
    expect_checkpoint({1, folder() / "step-00000001"}, stages);
  }
  EXPECT_GE(failed, 8);
}

TEST_F(Crash, AWriterThatLivesIsLeftAlone) {
  write_checkpoint(folder(), 1);
  CheckpointWriter slow(folder(), 2);
  slow.own_part().write_stage({0}, stage_tensors(2, 0));
  write_checkpoint(folder(), 3);
  keep_newest_checkpoints(folder(), 1);
  slow.own_part().write_stage({1}, stage_tensors(2, 1));
  slow.commit(R"({"step": 2})");
  EXPECT_THAT(entries(), ElementsAre("step-00000002", "step-00000003"));
  expect_checkpoint({2, folder() / "step-00000002"});
}

TEST_F(Crash, WhatADeadWriterLeftIsCleared) {
  fs::create_directory(folder() / ".writing-step-00000004.1.0");
  write_file_atomically(folder() / ".writing-step-00000004.1.0" / "stage-000.safetensors", "half");
  fs::create_directory(folder() / ".deleting-step-00000001.1.0");
  fs::create_directory(folder() / ".other");
  const CheckpointWriter writer(folder(), 5);
  EXPECT_THAT(entries(), Not(testing::Contains(StartsWith(".writing-step-00000004"))));
  EXPECT_THAT(entries(), Not(testing::Contains(StartsWith(".deleting-"))));
  EXPECT_THAT(entries(), testing::Contains(".other")) << "what is not penstock's is left alone";
}

}  // namespace
}  // namespace penstock
