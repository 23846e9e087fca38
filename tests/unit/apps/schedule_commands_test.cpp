#include "schedule_commands.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <random>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "unit/apps/outcome.h"

namespace penstock::app {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Json = nlohmann::json;

/// Runs `penstock LINE`.
Outcome penstock(const std::string& line) {
  CLI::App app("penstock");
  const Command simulate = add_simulate_command(app);
  const Command schedule = add_schedule_command(app);
  return outcome_of(app, line, [&] { return app.got_subcommand("simulate") ? simulate() : schedule(); });
}

std::filesystem::path file_of(const std::string& name, const std::string& content) {
  const auto path = std::filesystem::path(testing::TempDir()) / name;
  write_file_atomically(path, content);
  return path;
}

TEST(ScheduleCommands, ShowDrawsAGrid) {
  const Outcome outcome = penstock("schedule show 1f1b --ranks 2 --microbatches 2");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "rank 0  0F0 0F1         0B0----     0B1----\n"
            "rank 1      1F0 1B0---- 1F1 1B1----\n");
}

TEST(ScheduleCommands, ShowWritesEveryFormat) {
  const std::vector<std::pair<std::string, std::string>> formats = {{"text", "rank 0"},
                                                                    {"csv", "0F0,"},
                                                                    {"svg", "<svg"},
                                                                    {"html", "<!doctype html>"},
                                                                    {"trace", "{\"displayTimeUnit\""}};
  for (const auto& [format, begin] : formats) {
    const auto path = std::filesystem::path(testing::TempDir()) / ("schedule_commands_test." + format);
    const Outcome outcome =
        penstock("schedule show gpipe --ranks 3 --microbatches 4 --format " + format + " -o " + path.string());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(read_file(path), StartsWith(begin)) << format;
  }
}

TEST(ScheduleCommands, ShowTakesTheFormatFromTheSuffix) {
  const std::vector<std::pair<std::string, std::string>> formats = {{".txt", "rank 0"},
                                                                    {".csv", "0F0,"},
                                                                    {".svg", "<svg"},
                                                                    {".html", "<!doctype html>"},
                                                                    {".json", "{\"displayTimeUnit\""},
                                                                    {"", "rank 0"}};
  for (const auto& [suffix, begin] : formats) {
    const auto path = std::filesystem::path(testing::TempDir()) / ("schedule_commands_suffix" + suffix);
    const Outcome outcome = penstock("schedule show gpipe --ranks 3 --microbatches 4 -o " + path.string());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(read_file(path), StartsWith(begin)) << suffix;
  }
  const auto path = std::filesystem::path(testing::TempDir()) / "schedule_commands_mismatch.svg";
  const std::string line = "schedule show gpipe --ranks 3 --microbatches 4 --format csv -o " + path.string();
  EXPECT_EQ(penstock(line).code, 2);
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(penstock("schedule synth --ranks 2 --microbatches 2 -o " + path.string()).code, 2);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(ScheduleCommands, ListNamesEverySchedule) {
  const Json listed = Json::parse(penstock("schedule list --json").out)["schedules"];
  EXPECT_EQ(listed.size(), 16U);
  const std::string told = penstock("schedule list").out;
  for (const Json& schedule : listed)
    EXPECT_THAT(told, HasSubstr("\n" + schedule["schedule"].get<std::string>() + " "));
}

TEST(ScheduleCommands, AWrittenScheduleIsReadVerifiedAndSimulated) {
  const Outcome csv = penstock("schedule show 1f1b --ranks 4 --microbatches 8 --format csv --lower");
  EXPECT_THAT(csv.out, HasSubstr("SEND_F"));
  const auto path = file_of("schedule_commands_test.csv", csv.out);
  EXPECT_THAT(penstock("schedule verify " + path.string()).out,
              EndsWith("correct: 4 ranks, 4 stages, 8 microbatches\n"));
  const Json verified = Json::parse(penstock("schedule verify " + path.string() + " --json").out);
  EXPECT_EQ(verified["correct"], true);
  EXPECT_EQ(verified["microbatches"], 8);
  const Json by_file = Json::parse(penstock("simulate " + path.string() + " --json").out);
  const Json by_name = Json::parse(penstock("simulate 1f1b --ranks 4 --microbatches 8 --json").out);
  EXPECT_EQ(by_file["makespan_ms"], 33);
  EXPECT_EQ(by_file["ranks"], by_name["ranks"]);
  EXPECT_NEAR(by_file["bubble_makespan"].get<double>(), 3.0 / 11, 1e-12);
}

TEST(ScheduleCommands, VerifyRefusesWithTheNeighbourhood) {
  const auto path = file_of("schedule_commands_bad.csv", "0F0,0B0\n1B0,1F0\n");
  const Outcome outcome = penstock("schedule verify " + path.string());
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("schedule_commands_bad.csv: "), HasSubstr("\n"), HasSubstr(">1B0<")));
}

TEST(ScheduleCommands, VerifyHoldsACap) {
  const auto path =
      file_of("schedule_commands_cap.csv", penstock("schedule show 1f1b --ranks 4 --microbatches 8 --format csv").out);
  EXPECT_EQ(penstock("schedule verify --memory-cap 4 " + path.string()).code, 0);
  EXPECT_EQ(penstock("schedule verify --memory-cap 3 " + path.string()).code, 2);
}

TEST(ScheduleCommands, VerifyProvesItForBlockingSendsWhereAsked) {
  const auto steady =
      file_of("schedule_commands_1f1b.csv", penstock("schedule show 1f1b --ranks 2 --microbatches 4 --format csv").out);
  EXPECT_EQ(penstock("schedule verify " + steady.string()).code, 0);
  const Outcome outcome = penstock("schedule verify --blocking-sends " + steady.string());
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("waits for itself in a circle of 2 ranks"));
  const auto flush = file_of("schedule_commands_gpipe.csv",
                             penstock("schedule show gpipe --ranks 2 --microbatches 4 --format csv").out);
  EXPECT_EQ(penstock("schedule verify --blocking-sends " + flush.string()).code, 0);
}

TEST(ScheduleCommands, OtherOrdersOfTheGradientsAreLookedAtButNotPassedAsCorrect) {
  const auto backwards = file_of("schedule_commands_backwards.csv", "0F0,0F1,0B1,0B0\n");
  EXPECT_EQ(penstock("simulate " + backwards.string()).code, 0);
  EXPECT_EQ(penstock("schedule show " + backwards.string()).code, 0);
  EXPECT_THAT(penstock("schedule verify " + backwards.string()).err, HasSubstr("in the order of the microbatches"));
  EXPECT_EQ(penstock("schedule verify --any-order " + backwards.string()).code, 0);
}

TEST(ScheduleCommands, VerifySaysWhichStagesHaveCopies) {
  const auto path = file_of("schedule_commands_dualpipe.csv",
                            penstock("schedule show dualpipe --ranks 4 --microbatches 8 --format csv").out);
  EXPECT_THAT(penstock("schedule verify " + path.string()).out,
              EndsWith("4 stages (4 held by two ranks, whose gradients must be added), 8 microbatches\n"));
}

TEST(ScheduleCommands, SimulateTakesACostFile) {
  const auto cost = file_of("schedule_commands_cost.json", R"({"stages": [
    {"forward_ms": 1, "input_backward_ms": 2, "weight_backward_ms": 1, "activation_bytes": 1024},
    {"forward_ms": 3, "input_backward_ms": 1, "weight_backward_ms": 1}], "memory_cap_bytes": [512, 0]})");
  const Outcome outcome = penstock("simulate gpipe --ranks 2 --microbatches 2 --cost " + cost.string());
  EXPECT_THAT(outcome.out, HasSubstr("makespan 15 ms"));
  EXPECT_THAT(outcome.out, HasSubstr("rank 0 needs 2 KiB, above its cap of 512 B"));
}

TEST(ScheduleCommands, CompareListsSchedulesBestFirst) {
  const Outcome outcome = penstock(
      "schedule compare --ranks 4 --microbatches 8 --forward 18.5 --input-backward 18 "
      "--weight-backward 9.3 --link 0.6 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json schedules = Json::parse(outcome.out)["schedules"];
  double last = 0;
  std::vector<std::string> names;
  for (const Json& entry : schedules) {
    EXPECT_GE(entry["bubble_makespan"], last);
    last = entry["bubble_makespan"];
    names.push_back(entry["schedule"]);
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"naive", "gpipe", "1f1b"}));
  EXPECT_EQ(names.back(), "naive");
  EXPECT_THAT(penstock("schedule compare --ranks 4 --microbatches 8 --memory-cap 4").out, HasSubstr("gpipe: "));
}

TEST(ScheduleCommands, BadInputIsOneLineAndExitCodeTwo) {
  const auto noise = file_of("schedule_commands_noise.csv", "no schedule\nat all\n");
  const std::string endless(5000, 'a');
  const auto negative = file_of("schedule_commands_negative.json",
                                R"({"stages": [{"forward_ms": -1, "input_backward_ms": 2, "weight_backward_ms": 1}]})");
  std::string bytes;
  bytes.resize(10'000'000);
  std::mt19937 random(7);
  for (char& byte : bytes) byte = static_cast<char>(random());
  const auto noises = file_of("schedule_commands_noises.csv", bytes);
  const auto three = file_of("schedule_commands_three.json",
                             R"({"stages": [{"forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1},
                                            {"forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1},
                                            {"forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1}]})");
  const auto missing =
      file_of("schedule_commands_missing.json", R"({"stages": [{"forward_ms": 1, "input_backward_ms": 2}]})");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"schedule show nosuch --ranks 2 --microbatches 2", "1f1b"},
      {"schedule show ./no.csv", "./no.csv is no file"},
      {"schedule show " + endless + " --ranks 2 --microbatches 2", "there is no schedule 'aaa"},
      {"schedule show " + endless, "… without --ranks and --microbatches"},
      {"simulate ./" + endless, "… is no file"},
      {"schedule verify " + endless, "cannot read aaa"},
      {"schedule show 1f1b --ranks 2 --microbatches 2 -o " + endless, "--output aaa"},
      {"schedule synth --ranks 1 --microbatches 1 -o " + endless, "File name too long"},
      {"simulate 1f1b --ranks 1 --microbatches 1 --cost " + endless, "cannot read aaa"},
      {"schedule show chimera --ranks 1 --microbatches 2", "chimera on 1 rank; expected"},
      {"schedule show zb-v --ranks 4 --microbatches 2 --stages-per-rank 1", "zb-v with 1 stage a rank"},
      {"schedule show 1f1b --ranks 2", "--ranks and --microbatches"},
      {"schedule show 1f1b --ranks 0 --microbatches 2", "expected"},
      {"schedule compare --ranks 0 --microbatches 2", "0 ranks"},
      {"schedule compare --ranks 4 --microbatches 2 --memory-cap 0", "at least 1, the smallest that one does (naive)"},
      {"schedule synth --ranks 4 --microbatches 2 --memory-cap 0", "at least 1, the smallest that a schedule meets"},
      {"schedule synth --ranks 4 --microbatches 2 --placement v --memory-cap 1", "at least 2, the smallest"},
      {"schedule synth --ranks 0 --microbatches 2", "0 ranks"},
      {"schedule synth --ranks 2 --microbatches 2 --budget 0", "--budget 0"},
      {"schedule synth --ranks 2 --microbatches 2 --stages-per-rank 0", "0 stages a rank; expected at least 1"},
      {"schedule show gpipe --ranks 2 --microbatches 2 --posted-receives 2", "--posted-receives requires --lower"},
      {"schedule synth --ranks 800 --microbatches 30000", "stages and microbatches of at most 500000"},
      {"schedule synth --ranks 2000000000 --microbatches 2000000000", "at most 10000 stages"},
      {"schedule synth --ranks 2000000000 --microbatches 1 --stages-per-rank 2000000000", "at most 10000 stages"},
      {"schedule compare --ranks 8 --microbatches 2 --cost " + three.string(), "a cost of 3 stages; expected the 8"},
      {"schedule compare --ranks 8 --microbatches 2 --memory-cap 9 --cost " + three.string(), "a cost of 3 stages"},
      {"schedule show " + noises.string(), "row 1, column 1 holds"},
      {"simulate " + noises.string(), "row 1, column 1 holds"},
      {"simulate 1f1b --ranks 1 --microbatches 1 --cost " + noises.string(), "expected at most 16 levels"},
      {"simulate 1f1b --ranks 1 --microbatches 1 --cost " + missing.string(), "weight_backward_ms"},
      {"schedule compare --ranks 2 --microbatches 2 --forward -1", "forward_ms is -1"},
      {"schedule compare --ranks 2 --microbatches 2 --forward nan", "forward_ms is nan"},
      {"simulate " + noise.string(), "expected"},
      {"simulate 1f1b --ranks 1 --microbatches 1 --cost " + negative.string(), "stages[0].forward_ms is -1"},
      {"simulate 1f1b --ranks 1 --microbatches 1 --forward 2 --cost " + negative.string(), "--cost together with"},
      {"simulate 1f1b --ranks 1 --microbatches 1 --cost ./none.json", "none.json"},
  };
  for (const auto& [line, expected] : cases) {
    const Outcome outcome = penstock(line);
    EXPECT_EQ(outcome.code, 2) << line;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr(expected), Not(HasSubstr("\n")))) << line;
    EXPECT_EQ(outcome.out, "") << line;
    EXPECT_LT(outcome.err.size(), 500) << line;
  }
}

TEST(ScheduleCommands, VerifySaysTheFileOnce) {
  EXPECT_THAT(penstock("schedule verify none.csv").err,
              StartsWith("cannot read none.csv: No such file or directory; expected"));
}

TEST(ScheduleCommands, AnswersCountOneThingAsOne) {
  const auto path = file_of("schedule_commands_one.csv", "0F0,0B0\n");
  EXPECT_THAT(penstock("schedule verify " + path.string()).out, EndsWith("correct: 1 rank, 1 stage, 1 microbatch\n"));
  EXPECT_THAT(penstock("schedule show gpipe --ranks 1 --microbatches 1 --format svg").out,
              HasSubstr("GPipe on 1 rank, 1 microbatch"));
}

TEST(ScheduleCommands, SynthWritesAScheduleThatKeepsWithinTheCapAndAnswersInJson) {
  const auto path = file_of("schedule_commands_synth.csv", "");
  const Outcome outcome = penstock(
      "schedule synth --ranks 3 --microbatches 4 --forward 2 --input-backward 3 --link 0.5 "
      "--memory-cap 2 --budget 0.2 --json -o " +
      path.string());
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto answer = nlohmann::json::parse(outcome.out);
  for (const char* key : {"makespan_ms", "bubble_makespan", "bubble_span", "longest_span_ms", "lower_bound_ms",
                          "gap_to_bound", "best_generator_span_ms"})
    EXPECT_TRUE(answer.at(key).is_number()) << key;
  EXPECT_EQ(answer.at("ranks").size(), 3);
  EXPECT_GE(answer.at("longest_span_ms"), answer.at("lower_bound_ms"));
  EXPECT_EQ(penstock("schedule verify " + path.string() + " --memory-cap 2").code, 0);
}

TEST(ScheduleCommands, ARaggedRowIsRefusedByItsPlace) {
  const auto ragged = file_of("schedule_commands_ragged.csv", "0F0,0F1,0B0\n1F0,1B0,1F1,1B1\n");
  for (const char* command : {"simulate ", "schedule show ", "schedule verify "}) {
    const Outcome outcome = penstock(command + ragged.string());
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.err, HasSubstr("rank 0, position 3, the end: 0B1 is missing")) << command;
  }
}

TEST(ScheduleCommands, AFilesSizesMayBeRepeatedButNotContradicted) {
  const auto path = file_of("schedule_commands_sizes.csv", "0F0,0B0\n");
  EXPECT_EQ(penstock("simulate " + path.string() + " --ranks 1 --microbatches 1").code, 0);
  EXPECT_THAT(penstock("simulate " + path.string() + " --ranks 2").err, HasSubstr("--ranks is 2; expected 1, as in"));
}

}  // namespace
}  // namespace penstock::app
