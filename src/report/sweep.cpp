#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <map>

#include "penstock/base/error.h"
#include "penstock/report/plan_report.h"

#include "report/drawing.h"

namespace penstock {
namespace {

constexpr double axis_width = 64;
constexpr double legend_width = 250;
constexpr double chart_width = 560;
constexpr double chart_height = 340;
constexpr std::size_t most_lines = 8;

/// Told apart in common kinds of colour blindness (Okabe and Ito 2008).
constexpr std::array<std::string_view, most_lines> line_colours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                                "#e69f00", "#56b4e9", "#8a7d00", "#777777"};

/// A schedule's line: the number of stages a rank at which it is fastest.
struct SweepLine {
  std::string schedule;
  int stages_per_rank = 1;
  std::vector<SweepPoint> points;
  double fastest = std::numeric_limits<double>::infinity();

  [[nodiscard]] std::string name() const {
    return stages_per_rank == 1 ? schedule : fmt::format("{}, {} stages a rank", schedule, stages_per_rank);
  }
};

std::vector<SweepLine> lines_of(const std::vector<SweepPoint>& points) {
  std::map<std::pair<std::string, int>, SweepLine> all;
  for (const SweepPoint& point : points) {
    SweepLine& line = all[{point.schedule, point.stages_per_rank}];
    line.schedule = point.schedule;
    line.stages_per_rank = point.stages_per_rank;
    line.points.push_back(point);
    line.fastest = std::min(line.fastest, point.step.count);
  }
  std::map<std::string, SweepLine> of_schedule;
  for (const auto& [key, line] : all) {
    SweepLine& best = of_schedule[line.schedule];
    if (line.fastest < best.fastest) best = line;
  }
  std::vector<SweepLine> lines;
  lines.reserve(of_schedule.size());
  for (const auto& [schedule, line] : of_schedule) lines.push_back(line);
  std::stable_sort(lines.begin(), lines.end(),
                   [](const SweepLine& a, const SweepLine& b) { return a.fastest < b.fastest; });
  if (lines.size() > most_lines) lines.resize(most_lines);
  return lines;
}

/// Where a point is in the picture.
struct Axes {
  Layout layout;
  double least = 0;    ///< log2 of the microbatches at the left edge
  double most = 1;     ///< and at the right one
  double longest = 1;  ///< the step at the upper edge

  [[nodiscard]] double x(int microbatches) const {
    return layout.left + (std::log2(microbatches) - least) / (most - least) * chart_width;
  }
  [[nodiscard]] double y(double step) const {
    return layout.top + chart_height - std::min(step / longest, 1.0) * chart_height;
  }
};

Axes axes_of(const std::vector<SweepLine>& lines, const std::vector<MeasuredPoint>& measured,
             const std::string& title) {
  Axes axes;
  axes.least = std::numeric_limits<double>::infinity();
  axes.most = 0;
  double fastest = std::numeric_limits<double>::infinity();
  double longest = 0;
  const auto include = [&](int microbatches, double step) {
    axes.least = std::min(axes.least, std::floor(std::log2(microbatches)));
    axes.most = std::max(axes.most, std::ceil(std::log2(microbatches)));
    fastest = std::min(fastest, step);
    longest = std::max(longest, step);
  };
  for (const SweepLine& line : lines)
    for (const SweepPoint& point : line.points) include(point.microbatches, point.step.count);
  for (const MeasuredPoint& point : measured) include(point.microbatches, point.step.count);
  axes.most = std::max(axes.most, axes.least + 1);
  // Steps several times as long as the best are of no interest and would press the others together.
  constexpr double of_interest = 4;
  axes.longest = std::max(std::min(longest * 1.05, fastest * of_interest), 1e-9);
  axes.layout.title = title;
  axes.layout.left += axis_width;
  constexpr double unit_height = 14;
  axes.layout.top += unit_height + (title.empty() ? 0 : title_height);
  axes.layout.width = chart_width + legend_width;
  axes.layout.height = chart_height;
  return axes;
}

void append_line(std::string& out, double x1, double y1, double x2, double y2) {
  fmt::format_to(std::back_inserter(out),
                 "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", x1, y1, x2, y2);
}

void append_axes(std::string& out, const Axes& axes) {
  const double bottom = axes.layout.top + chart_height;
  const double rough = axes.longest / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double unit = rough / power >= 5 ? 5 * power : rough / power >= 2 ? 2 * power : power;
  for (int index = 0; index * unit <= axes.longest; ++index) {
    const double mark = index * unit;
    append_line(out, axes.layout.left, axes.y(mark), axes.layout.left + chart_width, axes.y(mark));
    append_text(out, "faint end", axes.layout.left - 8, axes.y(mark) + 4, fmt::format("{:.6g}", mark));
  }
  for (int power_of_two = static_cast<int>(axes.least); power_of_two <= static_cast<int>(axes.most); ++power_of_two) {
    const int microbatches = 1 << power_of_two;
    append_line(out, axes.x(microbatches), axes.layout.top, axes.x(microbatches), bottom);
    append_text(out, "faint", axes.x(microbatches) - 6, bottom + 18, fmt::format("{}", microbatches));
  }
  append_text(out, "faint", axes.layout.left + chart_width / 2 - 40, bottom + 38, "microbatches");
  append_text(out, "faint", axes.layout.left - axis_width, axes.layout.top - 8, "step, ms");
}

void append_sweep_line(std::string& out, const Axes& axes, const SweepLine& line, std::string_view colour) {
  std::string path;
  for (const SweepPoint& point : line.points)
    path +=
        fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ", axes.x(point.microbatches), axes.y(point.step.count));
  fmt::format_to(std::back_inserter(out), "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                 path, colour);
  for (const SweepPoint& point : line.points) {
    if (point.step.count > axes.longest) continue;
    fmt::format_to(std::back_inserter(out),
                   "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\" stroke=\"{}\"><title>{}, M = {}: {:.6g} "
                   "ms{}</title></circle>\n",
                   axes.x(point.microbatches), axes.y(point.step.count), point.fits ? colour : "none", colour,
                   line.name(), point.microbatches, point.step.count,
                   point.fits ? "" : ", does not fit into the memory");
  }
}

void append_cross(std::string& out, const Axes& axes, const MeasuredPoint& point, std::string_view colour) {
  const double x = axes.x(point.microbatches);
  const double y = axes.y(point.step.count);
  fmt::format_to(std::back_inserter(out),
                 "<path d=\"M{:.1f} {:.1f}l10 10m0 -10l-10 10\" stroke=\"{}\" stroke-width=\"2.5\"><title>{}, M = {}: "
                 "measured {:.6g} ms</title></path>\n",
                 x - 5, y - 5, colour, point.schedule, point.microbatches, point.step.count);
}

}  // namespace

std::string sweep_svg(const std::vector<SweepPoint>& points, const std::vector<MeasuredPoint>& measured,
                      const std::string& title) {
  if (points.empty())
    throw bad_input("no predictions to draw", "at least one", "allow more schedules, microbatches or effort");
  const std::vector<SweepLine> lines = lines_of(points);
  std::vector<MeasuredPoint> drawn;  // on a line
  std::copy_if(measured.begin(), measured.end(), std::back_inserter(drawn), [&](const MeasuredPoint& point) {
    return std::any_of(lines.begin(), lines.end(), [&](const SweepLine& line) {
      return line.schedule == point.schedule && line.stages_per_rank == point.stages_per_rank;
    });
  });
  const Axes axes = axes_of(lines, drawn, title);
  std::string out;
  append_head(out, axes.layout);
  append_axes(out, axes);
  const double legend_x = axes.layout.left + chart_width + 20;
  for (std::size_t index = 0; index < lines.size(); ++index) {
    const std::string_view colour = line_colours.at(index);
    append_sweep_line(out, axes, lines[index], colour);
    for (const MeasuredPoint& point : drawn)
      if (point.schedule == lines[index].schedule && point.stages_per_rank == lines[index].stages_per_rank)
        append_cross(out, axes, point, colour);
    const double y = axes.layout.top + 14 + 22 * static_cast<double>(index);
    fmt::format_to(std::back_inserter(out), "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"4\" fill=\"{}\"/>\n",
                   legend_x, y - 6, colour);
    append_text(out, "ink", legend_x + 20, y, lines[index].name());
  }
  double y = axes.layout.top + 24 + 22 * static_cast<double>(lines.size());
  if (std::any_of(points.begin(), points.end(), [](const SweepPoint& point) { return !point.fits; })) {
    append_text(out, "faint", legend_x, y, "hollow: over the memory");
    y += 18;
  }
  if (!drawn.empty()) append_text(out, "faint", legend_x, y, "crosses: measured");
  out += "</svg>\n";
  return out;
}

}  // namespace penstock
