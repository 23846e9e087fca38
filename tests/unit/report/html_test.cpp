#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "penstock/base/file.h"
#include "penstock/report/comparison.h"
#include "penstock/report/report.h"

#include "unit/report/timelines.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::json;

Json data_of(const std::string& page) {
  const std::string begin = R"(<script type="application/json" id="data">)";
  const std::size_t from = page.find(begin) + begin.size();
  return Json::parse(page.substr(from, page.find("</script>", from) - from));
}

TEST(Html, HoldsEveryComputeActionMemoryAndTheFigures) {
  const Json data =
      data_of(to_html({{"first", drawn_timeline()}, {"second", {}}}, {.title = "t", .time_unit = "units"}));
  EXPECT_EQ(data["unit"], "units");
  EXPECT_EQ(data["last"], 8);
  ASSERT_EQ(data["timelines"].size(), 2);
  const Json& rank = data["timelines"][0]["ranks"][1];
  EXPECT_EQ(rank["stages"], (Json{1, 2}));
  EXPECT_EQ(rank["events"], (Json{1., 2., 0, 1, 0, 0, 2., 3., 0, 2, 0, 0, 6., 7., 2, 2, 0, 0, 7., 8., 3, 2, 0, 0}));
  EXPECT_EQ(rank["busy"], 4);
  EXPECT_EQ(data["timelines"][0]["ranks"][0]["memory"], (Json{0., 64, 1.5, 128}));
  EXPECT_EQ(data["timelines"][0]["makespan"], 8);
  EXPECT_FALSE(data["kinds"][0]["shades"][1][0] == data["kinds"][0]["shades"][1][1]);
}

TEST(Html, LeavesOutMemoryThatNobodyCounted) {
  Timeline timeline = drawn_timeline();
  for (auto& samples : timeline.memory)
    for (MemorySample& sample : samples) sample.bytes = {0};
  EXPECT_EQ(data_of(to_html({{"t", timeline}}))["timelines"][0]["ranks"][0]["memory"], Json::array());
}

TEST(Html, NamesCannotBreakOutOfThePage) {
  const std::string page = to_html({{"</script><b>%DATA%", drawn_timeline()}}, {.title = "<i>%DATA%</i>"});
  EXPECT_THAT(page, Not(HasSubstr("</script><b>")));
  EXPECT_THAT(page, HasSubstr("<title>&lt;i&gt;%DATA%&lt;/i&gt;</title>"));
  EXPECT_EQ(data_of(page)["timelines"][0]["name"], "</script><b>%DATA%");
}

TEST(Html, LoadsNothingFromAnywhere) {
  const std::string page = to_html({{"a", drawn_timeline()}});
  for (const char* reference : {"http:", "https:", "src=", "@import", "url("})
    EXPECT_THAT(page, Not(HasSubstr(reference)));
}

struct Finished {
  int status = -1;
  std::string output;
};

Finished run(const std::string& command) {
  Finished finished;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return finished;
  std::array<char, 4096> buffer{};
  for (std::size_t size = 0; (size = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    finished.output.append(buffer.data(), size);
  finished.status = pclose(pipe);
  return finished;
}

/// A browser of the Chromium family on the path, or nothing.
std::string chromium() {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
    if (run(std::string("command -v ") + name + " 2>/dev/null").status == 0) return name;
  return "";
}

/// Moves the pointer, scrolls and types as a reader would, and leaves what it saw as text in the page.
constexpr const char* reader = R"(<script>
const seen = {}, {rows, view, x_of} = shown, chart = document.getElementById("chart"), tip = document.getElementById("tip"), pen = chart.getContext("2d");
const box = chart.getBoundingClientRect();
const point = (x, y) => chart.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + x, clientY: box.top + y}));
const ink = (x, y) => pen.getImageData(x * chart.width / box.width, y * chart.height / box.height, 1, 1).data.join();
const at = (row, time) => [x_of(time), rows.filter(candidate => candidate.kind === "rank")[row].y + 4];
point(...at(0, 4.5));
seen.hover = tip.hidden ? "hidden" : tip.textContent;
point(...at(1, 4.5));
seen.waiting = tip.textContent;
point(x_of(1.75), rows.find(row => row.kind === "memory").y + 4);
seen.memory = tip.textContent;
chart.dispatchEvent(new PointerEvent("pointerleave"));
seen.left = tip.hidden;
seen.forward = ink(...at(0, 0.5));
seen.idle = ink(...at(0, 2.5));
const before = {...view}, x = x_of(4);
chart.dispatchEvent(new WheelEvent("wheel", {deltaY: -300, clientX: box.left + x, cancelable: true}));
seen.zoomed = (view.to - view.from) / (before.to - before.from);
seen.kept = Math.abs(x_of(4) - x) < 0.01;
chart.dispatchEvent(new PointerEvent("pointerdown", {clientX: box.left + 500, pointerId: 1}));
const start = view.from;
point(400, 40);
chart.dispatchEvent(new PointerEvent("pointerup", {pointerId: 1}));
seen.dragged = view.from > start;
chart.dispatchEvent(new KeyboardEvent("keydown", {key: "0"}));
seen.all = view.from === before.from && view.to === before.to;
seen.rows = document.querySelectorAll("td").length;
document.body.append(Object.assign(document.createElement("pre"), {id: "seen", textContent: "SEEN" + JSON.stringify(seen) + "SEEN"}));
</script>)";

/// What a script leaves between two SEEN in a page that a browser has drawn.
Json seen_by(const std::string& browser, const std::string& page) {
  const auto folder = std::filesystem::path(testing::TempDir()) / fmt::format("penstock_html_test_{}", getpid());
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "page.html", page);
  const Finished finished =
      run("timeout 90 " + browser + " --headless --no-sandbox --disable-gpu --window-size=1200,800 --user-data-dir='" +
          (folder / "profile").string() + "' --dump-dom 'file://" + (folder / "page.html").string() + "' 2>/dev/null");
  std::filesystem::remove_all(folder);
  const std::size_t from = finished.output.find(">SEEN");
  EXPECT_NE(from, std::string::npos) << "the page's script stopped; status " << finished.status << "\n"
                                     << finished.output.substr(0, 400);
  if (from == std::string::npos) return {};
  return Json::parse(finished.output.substr(from + 5, finished.output.find("SEEN<", from) - from - 5));
}

TEST(Html, ABrowserDrawsHoversZoomsAndDrags) {
  const std::string browser = chromium();
  if (browser.empty()) GTEST_SKIP() << "no chromium on the path";
  const Json seen = seen_by(browser, to_html({{"step", drawn_timeline()}}) + reader);
  EXPECT_EQ(seen["hover"], "3B0\nbackward, stage 3, microbatch 0\n4 to 6 ms, takes 2");
  EXPECT_EQ(seen["waiting"], "rank 1\nwaits at 4.5 ms");
  EXPECT_THAT(seen["memory"].get<std::string>(), HasSubstr("holds 128 B"));
  EXPECT_EQ(seen["left"], true);
  EXPECT_NE(seen["forward"], seen["idle"]);
  EXPECT_NEAR(seen["zoomed"].get<double>(), 0.472, 0.001);
  EXPECT_EQ(seen["kept"], true);
  EXPECT_EQ(seen["dragged"], true);
  EXPECT_EQ(seen["all"], true);
  EXPECT_EQ(seen["rows"], 10);
}

TEST(Html, ABrowserDrawsAComparisonRankByRank) {
  const std::string browser = chromium();
  if (browser.empty()) GTEST_SKIP() << "no chromium on the path";
  Timeline shorter = drawn_timeline();
  shorter.ranks.pop_back();
  const Json seen = seen_by(browser, comparison_html(drawn_timeline(), shorter) + R"(<script>
const seen = {rows: shown.rows.map(row => row.label), figures: document.getElementById("summary").innerText.split(/\s+/)};
document.body.append(Object.assign(document.createElement("pre"), {textContent: "SEEN" + JSON.stringify(seen) + "SEEN"}));
</script>)");
  EXPECT_EQ(seen["rows"],
            (Json{"rank 0 predicted", "kept", "rank 0 measured", "kept", "rank 1 predicted", "rank 1 measured"}));
  EXPECT_THAT(seen["figures"].dump(), HasSubstr(R"("difference","−25.0","%")"));
}

}  // namespace
}  // namespace penstock
