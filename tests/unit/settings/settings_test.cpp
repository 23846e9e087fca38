#include "penstock/settings/settings.h"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::filesystem::path toml(const std::string& content) {
  const auto file = std::filesystem::path(testing::TempDir()) / "penstock_settings_test.toml";
  std::ofstream(file) << content;
  return file;
}

TEST(Settings, ComeBackFromTheirTomlEqual) {
  TrainSettings settings;
  settings.data.paths = {"a b", "quote \" and \\ backslash"};
  settings.training.learning_rate = 0.1 + 0.2;
  settings.training.epsilon = 1e-12;
  settings.training.clip = 3;
  settings.model.tied_head = true;
  settings.training.seed = 12345678901;
  settings.layout.devices = {"cpu", "cpu"};
  TrainSettings read;
  apply_toml(read, toml(to_toml(settings)));
  EXPECT_EQ(read, settings);
}

TEST(Settings, WhatIsChosenComesBackFromTomlToo) {
  TrainSettings settings;
  settings.data.kind = DataKind::Tokens32;
  settings.model.kind = ModelKind::Convnet;
  settings.layout.cut = "3,6";
  settings.layout.schedule = "own \"quoted\".csv";
  settings.layout.microbatches = automatic;
  settings.layout.ranks = automatic;
  settings.layout.recompute = "1-4,7";
  settings.layout.memory_limit = Bytes{1'500'000'001};
  settings.layout.gradient_bucket = {1 << 20};
  settings.layout.boundary_dtype = BoundaryDtype::BFloat16;
  settings.training.precision = Precision::Float16;
  settings.training.optimizer = OptimizerKind::Sgd;
  TrainSettings read;
  apply_toml(read, toml(to_toml(settings)));
  EXPECT_EQ(read, settings);
  settings.layout.microbatches = 8;
  settings.layout.ranks = 3;
  settings.layout.cut = automatic;
  settings.layout.recompute = Recompute::Selected;
  apply_toml(read, toml(to_toml(settings)));
  EXPECT_EQ(read, settings);
}

TEST(Settings, WhatBelongsToOneStartIsWrittenOnlyForOne) {
  TrainSettings settings;
  settings.output.folder = "runs/one";
  settings.output.resume = settings.output.from_the_beginning = settings.planning.remeasure = true;
  TrainSettings of_run;
  apply_toml(of_run, toml(to_toml(settings)));
  EXPECT_EQ(of_run, TrainSettings());
  TrainSettings of_start;
  apply_toml(of_start, toml(to_toml(settings, TomlExtent::OfTheStart)));
  EXPECT_EQ(of_start, settings);
}

// A plan and its schedule may lie anywhere, and be moved together.
TEST(Settings, AScheduleOfAPlanLiesWhereThePlanSaysFromItsOwnFolder) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "penstock_settings_plan";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "schedules");
  std::ofstream(folder / "plan.csv") << "0F0,0B0\n";
  std::ofstream(folder / "schedules" / "other.csv") << "0F0,0B0\n";
  const auto schedule_of_plan = [&](const std::string& named, const std::string& rest) {
    std::ofstream(folder / "plan.toml") << "schedule = \"" << named << "\"\n" << rest;
    TrainSettings settings;
    apply_toml(settings, folder / "plan.toml");
    return settings.layout.schedule.text();
  };
  const std::string prediction = "[prediction]\nranks = 1\n";
  EXPECT_EQ(schedule_of_plan("plan.csv", prediction), folder / "plan.csv");
  EXPECT_EQ(schedule_of_plan("schedules/other.csv", prediction), folder / "schedules/other.csv");
  EXPECT_EQ(schedule_of_plan(folder / "plan.csv", prediction), folder / "plan.csv") << "an absolute path";
  EXPECT_EQ(schedule_of_plan("plans/of/old/plan.csv", prediction), folder / "plan.csv") << "a plan that was moved";
  EXPECT_EQ(schedule_of_plan("none.csv", prediction), folder / "none.csv") << "where the message looks for it";
  EXPECT_EQ(schedule_of_plan("zb-v", prediction), "zb-v") << "a name is no file";
  EXPECT_EQ(schedule_of_plan("plan.csv", ""), "plan.csv") << "settings that are no plan";
  // As an earlier version wrote it, which names the file from the folder that is current.
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder);
  std::filesystem::create_directory("plans");
  std::ofstream("plans/plan.toml") << "schedule = \"schedules/other.csv\"\n" << prediction;
  TrainSettings settings;
  apply_toml(settings, "plans/plan.toml");
  EXPECT_EQ(settings.layout.schedule.text(), "schedules/other.csv");
  std::filesystem::current_path(before);
  std::filesystem::remove_all(folder);
}

// As version 12fd677 wrote them: the words of its settings are read as the values of today.
TEST(Settings, ThoseOfAnEarlierRunAreRead) {
  TrainSettings expected;
  expected.data.paths = {"books/README.md"};
  expected.data.context = 8;
  expected.model = {.layers = 3, .width = 8, .heads = 2};
  expected.layout.stages = 2;
  expected.layout.cut = CutChoice::before({2});
  expected.layout.microbatches = 2;
  expected.layout.recompute = Recompute::of({{0, 1}, {3, 3}});
  expected.layout.memory_limit = Bytes{3 << 29};
  expected.layout.gradient_bucket = {500'000};
  expected.training.batch = 4;
  expected.training.steps = 1;
  expected.training.optimizer = OptimizerKind::Sgd;
  expected.training.precision = Precision::BFloat16;
  expected.training.post_validation = false;  // which was a setting that nobody could leave open
  TrainSettings read;
  apply_toml(read, std::filesystem::path(PENSTOCK_GOLDEN) / "settings" / "config.toml");
  EXPECT_EQ(read, expected);
}

TEST(Settings, AFileChangesOnlyWhatItNames) {
  TrainSettings settings;
  settings.model.layers = 3;
  apply_toml(settings, toml("width = 64\ndata = \"one\"\ndropout = 0\n"));
  EXPECT_EQ(settings.model.layers, 3);
  EXPECT_EQ(settings.model.width, 64);
  EXPECT_EQ(settings.data.paths, std::vector<std::string>{"one"});
}

TEST(Settings, RefusalsNameLineKeyAndRemedy) {
  TrainSettings settings;
  const auto apply = [&](const std::string& content) {
    return [&settings, content] { apply_toml(settings, toml(content)); };
  };
  EXPECT_THAT(apply("\nbtach = 3"),
              ThrowsMessage<Error>(AllOf(HasSubstr("line 2"), HasSubstr("did you mean \"batch\""))));
  EXPECT_THAT(apply(std::string(100'000, 'k') + " = 3"), ThrowsMessage<Error>(testing::SizeIs(testing::Lt(1'000))));
  EXPECT_THAT(apply("batch = 3.5"), ThrowsMessage<Error>(AllOf(HasSubstr("batch"), HasSubstr("a whole number"))));
  EXPECT_THAT(apply("batch = \"3\""), ThrowsMessage<Error>(HasSubstr("a whole number")));
  EXPECT_THAT(apply("stages = 99999999999"), ThrowsMessage<Error>(HasSubstr("stages")));
  EXPECT_THAT(apply("data = [1]"), ThrowsMessage<Error>(HasSubstr("a list of texts")));
  EXPECT_THAT(apply("batch = "), ThrowsMessage<Error>(HasSubstr("is not TOML")));
  EXPECT_THAT(apply("\ncut = \"3,2\""),
              ThrowsMessage<Error>(AllOf(HasSubstr("line 2"), HasSubstr("cuts before layer 2"))));
  EXPECT_THAT(apply("cut = 3"),
              ThrowsMessage<Error>(AllOf(HasSubstr("a text in quotes"), HasSubstr("cut = \"uniform\""))));
  EXPECT_THAT(apply("microbatches = \"many\""),
              ThrowsMessage<Error>(AllOf(HasSubstr("a whole number"), HasSubstr("microbatches = 4"))));
  EXPECT_THAT(apply("schedule = \"a\\u0000.csv\""), ThrowsMessage<Error>(HasSubstr("holds a zero byte")));
  EXPECT_THAT(apply("model = \"lstm\""), ThrowsMessage<Error>(HasSubstr("`model` is \"lstm\"; expected one of gpt")));
  EXPECT_THAT(apply("memory-limit = \"4\""), ThrowsMessage<Error>(HasSubstr("`memory_limit` is \"4\"")));
}

TEST(Settings, EverySettingOutOfRangeIsRefused) {
  const auto refused = [](auto change) {
    TrainSettings settings;
    settings.data.paths = {"x"};
    settings.output.folder = "y";
    check_settings(settings);
    change(settings);
    EXPECT_THROW(check_settings(settings), Error);
  };
  refused([](TrainSettings& s) { s.training.batch = 0; });
  refused([](TrainSettings& s) { s.layout.microbatches = 33; });
  refused([](TrainSettings& s) { s.model.heads = 3; });
  refused([](TrainSettings& s) { s.data.held_out = 1; });
  refused([](TrainSettings& s) { s.training.learning_rate = -1; });
  refused([](TrainSettings& s) { s.training.clip = std::numeric_limits<double>::quiet_NaN(); });
  refused([](TrainSettings& s) { s.training.epsilon = 0; });
  for (const int steps : {0, 65}) refused([steps](TrainSettings& s) { s.training.steps_in_flight = steps; });
  refused([](TrainSettings& s) { s.training.epsilon = std::numeric_limits<double>::infinity(); });
  refused([](TrainSettings& s) { s.training.final_learning_rate = std::numeric_limits<double>::infinity(); });
  refused([](TrainSettings& s) { s.training.batch = std::numeric_limits<std::int64_t>::max(); });
  refused([](TrainSettings& s) { s.model.layers = 100'001; });
  refused([](TrainSettings& s) { s.layout.threads_per_rank = 100'000; });
  refused([](TrainSettings& s) { s.training.seed = std::numeric_limits<std::uint64_t>::max(); });
  refused([](TrainSettings& s) { s.model.kind = ModelKind::Own; });
  refused([](TrainSettings& s) { s.layout.recompute = "10"; });
  refused([](TrainSettings& s) { s.layout.ranks = -1; });
  refused([](TrainSettings& s) { s.layout.microbatches = -1; });
  refused([](TrainSettings& s) { s.layout.memory_limit = Bytes{0}; });
  refused([](TrainSettings& s) { s.data.paths.clear(); });
  refused([](TrainSettings& s) { s.output.folder.clear(); });
  refused([](TrainSettings& s) { s.layout.replicas = 0; });
  refused([](TrainSettings& s) { s.layout.replicas = 5; });
  for (const int tree : {-1, 3, 8}) refused([tree](TrainSettings& s) { s.layout.gradient_tree = tree; });
  refused([](TrainSettings& s) { s.layout.zero = 2; });
  refused([](TrainSettings& s) { s.layout.gradient_bucket = {0}; });
}

}  // namespace
}  // namespace penstock
