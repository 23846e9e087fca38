// The folder of a run, read; and the page that is made of it.
#include "penstock/report/run_report.h"

#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <string>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/report/report.h"
#include "penstock/schedule/generators.h"
#include "penstock/sim/simulate.h"

namespace penstock::run_report_test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Json = nlohmann::json;

/// Each F, I and W takes 1 ms.
Timeline played_evenly(const VerifiedSchedule& schedule) {
  StageCost stage;
  stage.forward = stage.input_backward = stage.weight_backward = {1};
  return simulate(schedule, uniform_cost(schedule->stages, stage));
}

class RunReport : public testing::Test {
 protected:
  RunReport() : folder_(fs::path(testing::TempDir()) / fmt::format("run_report_{}", ::getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write("config.toml",
          "# What is kept\nout = \"runs/first\"\nsteps = 4\nschedule = \"1f1b\"\nheld-out = 0.1\ndata = [\"a\", "
          "\"b\"]\n");
  }
  ~RunReport() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const { std::ofstream(folder_ / name) << text; }
  static std::string line(int step, double loss, const std::string& more = "") {
    return fmt::format(R"({{"step":{},"time":"2026-11-29T09:30:0{}.000Z","loss":{},"step_ms":10,"data_ms":1,)"
                       R"("tokens_per_s":100,"tokens":{},"utilisation":0.5{}}})"
                       "\n",
                       step, step % 10, loss, step * 100, more);
  }
  [[nodiscard]] RecordedRun read() const { return read_run(folder_); }
  /// What the page's script is given.
  static Json data_of(const std::string& page) {
    const std::string begin = R"(<script type="application/json" id="data">)";
    const std::size_t from = page.find(begin) + begin.size();
    return Json::parse(page.substr(from, page.find("</script>", from) - from));
  }

  fs::path folder_;
};

TEST_F(RunReport, LinesBecomeCurvesAndWhatIsMissingIsNoNumber) {
  write("metrics.jsonl", line(1, 3.5) + line(2, 2.5, R"(,"held_out_loss":2.25,"evaluation_ms":7)") + line(3, 1.5));
  const RecordedRun run = read();
  EXPECT_THAT(run.curves.steps, ElementsAre(1, 2, 3));
  EXPECT_THAT(run.curves.loss, ElementsAre(3.5, 2.5, 1.5));
  EXPECT_EQ(run.curves.held_out_loss.at(1), 2.25);
  EXPECT_TRUE(std::isnan(run.curves.held_out_loss.at(0)));
  EXPECT_EQ(run.tokens, 300);
  using Setting = std::pair<std::string, std::string>;
  EXPECT_THAT(run.settings,
              ElementsAre(Setting{"out", "runs/first"}, Setting{"steps", "4"}, Setting{"schedule", "1f1b"},
                          Setting{"held-out", "0.1"}, Setting{"data", "a, b"}));
}

TEST_F(RunReport, ATornLineADamagedOneAndARepeatedStepAreLeftOutAndSaid) {
  write("metrics.jsonl", line(1, 3) + "{\"step\":2,\"lo\n" + line(2, 2) + line(2, 9) + std::string(2'000'000, 'x') +
                             "\n" + line(3, 1) + R"({"step":4,"loss":0)");
  const RecordedRun run = read();
  EXPECT_THAT(run.curves.loss, ElementsAre(3, 2, 1));
  EXPECT_THAT(run.notes, Contains(HasSubstr("3 lines of metrics.jsonl")));
}

TEST_F(RunReport, ARanksTimeIsDividedWithoutRest) {
  const std::string ranks = R"(,"rank_busy_ms":[6,4],"rank_span_ms":[9,7],"rank_link_ms":[1,5])";
  write("metrics.jsonl", line(1, 3, ranks) + line(2, 2, ranks));
  const RecordedRun run = read();
  EXPECT_EQ(run.timed_steps, 2);
  EXPECT_THAT(run.ranks, ElementsAre(RankTime{{6}, {1}, {2}, {1}}, RankTime{{4}, {3}, {0}, {3}}));
}

TEST_F(RunReport, TheLossAtTheEndBelongsToTheLastStep) {
  write("metrics.jsonl", line(1, 3) + line(2, 2));
  write("events.jsonl", R"({"time":"","step":0,"event":"start","text":"begun"})"
                        "\n"
                        R"({"time":"","step":2,"event":"end","text":"done","held_out_loss":1.75})"
                        "\n");
  const RecordedRun run = read();
  EXPECT_EQ(run.curves.held_out_loss.at(1), 1.75);
  EXPECT_EQ(run.events.back().kind, "end");
}

TEST_F(RunReport, AnOldFolderIsShownWithNotes) {
  write("metrics.jsonl", line(1, 3));
  const VerifiedSchedule schedule = verify(make_schedule("1f1b", 2, 4));
  const Timeline played = played_evenly(schedule);
  write("timeline.json", to_chrome_trace(played));
  const RecordedRun run = read();
  ASSERT_TRUE(run.step);
  EXPECT_EQ(run.ranks.size(), 2U);
  EXPECT_EQ(run.ranks.at(0).compute, Milliseconds{12});
  EXPECT_THAT(run.notes, Contains(HasSubstr("as in runs of old")));
  const Json data = data_of(to_html({run}));
  const Json& timelines = data["runs"][0]["step"]["timelines"];
  ASSERT_EQ(timelines.size(), 2U);
  EXPECT_EQ(timelines[0]["makespan"], timelines[1]["makespan"]);
}

TEST_F(RunReport, LinksAreReadAndNumbersThatFitNoLinkAreRefused) {
  write("metrics.jsonl", line(1, 3));
  const auto link = [](const std::string& from, const std::string& bytes) {
    return fmt::format(R"([{{"from":0,"to":1,"bytes":8}},{{"from":{},"to":0,"bytes":{},"messages":2,"waited_ms":3,)"
                       R"("transfer_ms":4,"hidden":0.5}}])",
                       from, bytes);
  };
  write("links.json", link("1", "1024"));
  const LinkUse there{.from = 0, .to = 1, .bytes = {8}, .messages = 0, .waited = {}, .transfer = {}, .hidden = {}};
  const LinkUse back{.from = 1, .to = 0, .bytes = {1024}, .messages = 2, .waited = {3}, .transfer = {4}, .hidden = {2}};
  EXPECT_THAT(read().links, ElementsAre(there, back));
  for (const auto& [from, bytes] : {std::pair{"1e300", "8"}, {"-1", "8"}, {"100000", "8"}, {"1", "1e19"}}) {
    write("links.json", link(from, bytes));
    const RecordedRun run = read();
    EXPECT_THAT(run.links, testing::IsEmpty()) << from << ", " << bytes;
    EXPECT_THAT(run.notes, Contains(HasSubstr("links.json cannot be read: "))) << from << ", " << bytes;
  }
}

TEST_F(RunReport, AFileThatCannotBeReadIsANoteAndTheRestIsShown) {
  write("config.toml", "steps = \n");
  write("metrics.jsonl", line(1, 3));
  write("timeline.json", "[");
  const RecordedRun run = read();
  EXPECT_THAT(run.curves.loss, ElementsAre(3));
  EXPECT_THAT(run.notes, Contains(HasSubstr("config.toml is not TOML")));
  EXPECT_THAT(run.notes, Contains(HasSubstr("timeline.json cannot be read")));
}

TEST_F(RunReport, ATraceReadsBackToWhatWasWritten) {
  const VerifiedSchedule schedule = verify(make_schedule("zb-h1", 3, 4));
  const Timeline played = played_evenly(schedule);
  const MeasuredStep step = read_chrome_trace(to_chrome_trace(played));
  EXPECT_EQ(step.timeline.ranks, played.ranks);
  EXPECT_EQ(step.schedule.actions, schedule->actions);
  EXPECT_THAT([] { static_cast<void>(read_chrome_trace(R"({"traceEvents":[]})")); },
              ThrowsMessage<Error>(HasSubstr("a rank without actions")));
}

TEST_F(RunReport, ManyStepsBecomeBandsThatHoldEveryValue) {
  std::string lines;
  const std::string ranks =
      R"(,"learning_rate":0.001,"grad_norm":1.25,"rank_busy_ms":[6.123,4.5],"rank_span_ms":[9.5,7],"rank_link_ms":[1,5])";
  for (int step = 1; step <= 10'000; ++step) lines += line(step, step == 5'000 ? 99 : 1 + 1.0 / step, ranks);
  write("metrics.jsonl", lines);
  const std::string page = to_html({read()});
  EXPECT_LT(page.size(), 2'000'000U);
  const Json loss = data_of(page)["runs"][0]["curves"]["loss"];
  EXPECT_LE(loss["middle"].size(), 300U);
  EXPECT_EQ(loss["middle"].size(), loss["most"].size());
  EXPECT_THAT(loss["most"], Contains(99));
  EXPECT_THAT(loss["middle"], testing::Not(Contains(99)));
  EXPECT_EQ(loss["steps_a_point"], 34);
}

TEST_F(RunReport, OnlySettingsThatDifferAreComparedAndNamesAreNoMarkup) {
  const RecordedRun first = read();
  RecordedRun second = first;
  second.name = "</script><b>";
  second.settings.at(1).second = "8";
  const std::string page = to_html({first, second}, {.title = "<b>"});
  const Json data = data_of(page);
  EXPECT_EQ(data["settings"], Json::parse(R"([["steps","4","8"]])"));
  EXPECT_EQ(data["runs"][1]["name"], "</script><b>");
  EXPECT_THAT(page, HasSubstr("<title>&lt;b&gt;</title>"));
}

TEST_F(RunReport, WhatIsNoRunIsRefused) {
  fs::remove(folder_ / "config.toml");
  EXPECT_THAT([&] { static_cast<void>(read()); }, ThrowsMessage<Error>(HasSubstr("holds no run")));
  EXPECT_THAT([&] { static_cast<void>(read_run(folder_ / "nowhere")); },
              ThrowsMessage<Error>(HasSubstr("is no folder")));
}

}  // namespace
}  // namespace penstock::run_report_test
