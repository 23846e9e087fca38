#include "penstock/checkpoint/checkpoint.h"

#include <fstream>
#include <gmock/gmock.h>
#include <thread>

#include "penstock/base/file.h"

#include "checkpoint_fixture.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class Checkpoint : public FolderTest {};

std::vector<std::int64_t> steps_of(const std::vector<CheckpointId>& ids) {
  std::vector<std::int64_t> steps;
  steps.reserve(ids.size());
  for (const CheckpointId& id : ids) steps.push_back(id.step);
  return steps;
}

TEST_F(Checkpoint, GivesBackWhatTheStagesWrote) {
  write_checkpoint(folder(), 300, 3);
  EXPECT_THAT(entries(), ElementsAre("step-00000300"));
  const auto latest = latest_whole_checkpoint(folder());
  ASSERT_TRUE(latest);
  EXPECT_EQ(*latest, (CheckpointId{300, fs::absolute(folder()) / "step-00000300"}));
  expect_checkpoint(*latest, 3);
}

TEST_F(Checkpoint, StagesAreWrittenAtTheSameTime) {
  constexpr int stages = 8;
  CheckpointWriter writer(folder(), 7);
  std::vector<std::thread> ranks;
  ranks.reserve(stages);
  for (int stage = 0; stage < stages; ++stage)
    ranks.emplace_back([&writer, stage] { writer.own_part().write_stage({stage}, stage_tensors(7, stage)); });
  for (std::thread& rank : ranks) rank.join();
  writer.commit(R"({"step": 7})");
  expect_checkpoint({7, folder() / "step-00000007"}, stages);
}

TEST_F(Checkpoint, DoesNotExistBeforeItsCommit) {
  write_checkpoint(folder(), 1);
  {
    CheckpointWriter writer(folder(), 2);
    writer.own_part().write_stage({0}, stage_tensors(2, 0));
    EXPECT_THAT(steps_of(whole_checkpoints(folder())), ElementsAre(1));
    EXPECT_EQ(latest_whole_checkpoint(folder())->step, 1);
  }
  EXPECT_THAT(entries(), ElementsAre("step-00000001")) << "a writer that is given up leaves nothing";
}

TEST_F(Checkpoint, MetadataComesBackToTheByte) {
  const std::string metadata = "{\"note\": \"größer \\u0001 \\\"than\\\"\",\n\t\"rate\": 0.1}  \x7f";
  CheckpointWriter writer(folder(), 0);
  writer.own_part().write_stage({0}, stage_tensors(0, 0));
  writer.commit(metadata);
  EXPECT_EQ(CheckpointReader({0, folder() / "step-00000000"}).metadata(), metadata);
}

TEST_F(Checkpoint, NewestComesFirstByNumberAndForeignNamesDoNotCount) {
  for (const std::int64_t step : {9, 100'000'000, 20}) write_checkpoint(folder(), step);
  for (const char* name : {"step-9", "step-0000000x", "step-", "notes", "step-00000021"})
    fs::create_directory(folder() / name);
  std::ofstream(folder() / "step-00000030") << "a file, not a folder";
  EXPECT_THAT(steps_of(whole_checkpoints(folder())), ElementsAre(100'000'000, 20, 9));
}

TEST_F(Checkpoint, WithoutAFolderThereIsNone) {
  EXPECT_TRUE(whole_checkpoints(folder() / "none").empty());
  EXPECT_FALSE(latest_whole_checkpoint(folder() / "none"));
  std::ofstream(folder() / "file") << "x";
  EXPECT_THAT(message_of([&] { static_cast<void>(whole_checkpoints(folder() / "file")); }), HasSubstr("cannot list"));
}

TEST_F(Checkpoint, TheSameStepIsReplacedInOneMoment) {
  write_checkpoint(folder(), 5, 3);
  write_checkpoint(folder(), 5, 1);
  EXPECT_THAT(entries(), ElementsAre("step-00000005"));
  expect_checkpoint({5, folder() / "step-00000005"}, 1);
}

TEST_F(Checkpoint, DamagedOnesAreSkippedAndSaid) {
  for (const std::int64_t step : {1, 2, 3, 4}) write_checkpoint(folder(), step);
  const fs::path flipped = folder() / "step-00000004" / "stage-001.safetensors";
  std::string content = read_file(flipped);
  content.back() = static_cast<char>(content.back() ^ 1);
  std::ofstream(flipped, std::ios::binary) << content;
  fs::resize_file(folder() / "step-00000003" / "stage-000.safetensors", 100);
  fs::remove(folder() / "step-00000002" / "index.json");

  EXPECT_THAT(steps_of(whole_checkpoints(folder())), ElementsAre(4, 1)) << "sizes and indices alone";
  std::vector<SkippedCheckpoint> skipped;
  EXPECT_EQ(latest_whole_checkpoint(folder(), &skipped)->step, 1);
  ASSERT_EQ(skipped.size(), 3);
  EXPECT_THAT(skipped[0].reason, HasSubstr("step-00000004/stage-001.safetensors: xxh64"));
  EXPECT_THAT(skipped[1].reason, HasSubstr("step-00000003/stage-000.safetensors: 100 bytes"));
  EXPECT_THAT(skipped[2].reason, HasSubstr("step-00000002/index.json"));
}

TEST_F(Checkpoint, ARenamedFolderIsForeign) {
  write_checkpoint(folder(), 5);
  fs::rename(folder() / "step-00000005", folder() / "step-00000006");
  EXPECT_TRUE(whole_checkpoints(folder()).empty());
  EXPECT_THAT(message_of([&] { CheckpointReader({6, folder() / "step-00000006"}); }), HasSubstr("the index of step 5"));
}

TEST_F(Checkpoint, KeepsTheNewest) {
  for (const std::int64_t step : {10, 20, 30, 40, 50}) write_checkpoint(folder(), step);
  fs::remove(folder() / "step-00000040" / "index.json");
  fs::remove(folder() / "step-00000010" / "index.json");
  keep_newest_checkpoints(folder(), 2);
  // Those that are not whole stay: whoever damaged them may mend them.
  EXPECT_THAT(entries(), ElementsAre("step-00000010", "step-00000030", "step-00000040", "step-00000050"));
  keep_newest_checkpoints(folder(), 1);
  EXPECT_THAT(entries(), ElementsAre("step-00000010", "step-00000040", "step-00000050"));
  expect_checkpoint({50, folder() / "step-00000050"});
}

TEST_F(Checkpoint, OneThatIsSetAsideIsTakenNoMoreAndReplacesNothing) {
  for (const std::int64_t step : {10, 20}) write_checkpoint(folder(), step);
  fs::create_directory(folder() / "damaged-step-00000020");
  EXPECT_EQ(set_aside_checkpoint(folder() / "step-00000020"), folder() / "damaged-step-00000020.1");
  EXPECT_EQ(latest_whole_checkpoint(folder())->step, 10);
  EXPECT_TRUE(fs::exists(folder() / "damaged-step-00000020.1" / "index.json"));
  EXPECT_TRUE(fs::is_empty(folder() / "damaged-step-00000020"));
}

TEST_F(Checkpoint, NoNameInTwoStages) {
  CheckpointWriter writer(folder(), 1);
  writer.own_part().write_stage({0}, stage_tensors(1, 0));
  EXPECT_THAT(message_of([&] { writer.own_part().write_stage({1}, stage_tensors(1, 0)); }),
              HasSubstr("\"layers.0.weight\" in stage-000.safetensors and in stage-001.safetensors"));
  message_of([&] { writer.commit("{}"); }, ErrorKind::RunFailed);
}

TEST_F(Checkpoint, AMissingTensorIsNamed) {
  write_checkpoint(folder(), 1);
  const CheckpointReader reader({1, folder() / "step-00000001"});
  EXPECT_THAT(message_of([&] { static_cast<void>(reader.read("layers.9.weight")); }), HasSubstr("layers.9.weight"));
}

}  // namespace
}  // namespace penstock
