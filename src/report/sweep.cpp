#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <limits>
#include <map>
#include <tuple>

#include "penstock/base/error.h"
#include "penstock/report/report.h"

#include "report/drawing.h"

namespace penstock {
namespace {

constexpr double axis_width = 64;
constexpr double chart_width = 440;
constexpr double chart_height = 340;
constexpr double line_height = 22;  // of the legend, below the chart: a phone shows it whole
constexpr std::size_t most_lines = 8;

/// Told apart in common kinds of colour blindness (Okabe and Ito 2008).
constexpr std::array<std::string_view, most_lines> line_colours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                                "#e69f00", "#56b4e9", "#8a7d00", "#777777"};

constexpr double close_enough = 0.03;  // of the best

/// The best of the points that fit, by the number of microbatches; empty if none fits.
std::map<int, const SweepPoint*> best_by_microbatches(const std::vector<SweepPoint>& points) {
  std::map<int, const SweepPoint*> best;
  for (const SweepPoint& point : points) {
    if (!point.fits) continue;
    const SweepPoint*& known = best[point.microbatches];
    if (known == nullptr || point.step < known->step) known = &point;
  }
  return best;
}

/// The best point, and the numbers of microbatches around it that are nearly as good.
struct SweepAnswer {
  const SweepPoint* best = nullptr;  ///< null: nothing fits
  int least = 1;
  int most = 1;
};

SweepAnswer answer_of(const std::vector<SweepPoint>& points) {
  const auto best_of = best_by_microbatches(points);
  const auto fastest = std::min_element(best_of.begin(), best_of.end(),
                                        [](const auto& a, const auto& b) { return a.second->step < b.second->step; });
  if (fastest == best_of.end()) return {};
  SweepAnswer answer{fastest->second, fastest->first, fastest->first};
  const auto is_close = [&](const auto& entry) {
    return entry.second->step.count <= answer.best->step.count * (1 + close_enough);
  };
  for (auto later = fastest; later != best_of.end() && is_close(*later); ++later) answer.most = later->first;
  for (auto earlier = std::make_reverse_iterator(fastest); earlier != best_of.rend() && is_close(*earlier); ++earlier)
    answer.least = earlier->first;
  return answer;
}

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
  std::map<std::string, SweepLine> best_by_schedule;
  for (const auto& [key, line] : all) {
    SweepLine& best = best_by_schedule[line.schedule];
    if (line.fastest < best.fastest) best = line;
  }
  std::vector<SweepLine> lines;
  lines.reserve(best_by_schedule.size());
  for (const auto& [schedule, line] : best_by_schedule) lines.push_back(line);
  std::stable_sort(lines.begin(), lines.end(),
                   [](const SweepLine& a, const SweepLine& b) { return a.fastest < b.fastest; });
  if (lines.size() > most_lines) lines.resize(most_lines);
  return lines;
}

/// Where a point is in the picture.
struct Axes {
  DrawingLayout layout;
  double least = 0;     ///< log2 of the microbatches at the left edge
  double most = 1;      ///< and at the right one
  double shortest = 0;  ///< the step at the lower edge
  double longest = 1;   ///< and at the upper one

  [[nodiscard]] double x(int microbatches) const {
    return layout.left + (std::log2(microbatches) - least) / (most - least) * chart_width;
  }
  [[nodiscard]] double y(double step) const {
    return layout.top + chart_height - std::clamp((step - shortest) / (longest - shortest), 0.0, 1.0) * chart_height;
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
  // Steps far longer than the best are of no interest and would press the others together; nor is the room below it.
  constexpr double longest_shown = 1.6;
  axes.longest = std::max(std::min(longest, fastest * longest_shown), 1e-9);
  const double room = std::max(0.08 * (axes.longest - fastest), 0.01 * axes.longest);
  axes.shortest = std::max(fastest - room, 0.0);
  axes.longest += room;
  axes.layout.title = title;
  axes.layout.left += axis_width;
  constexpr double unit_height = 14;
  axes.layout.top += unit_height + (title.empty() ? 0 : title_height);
  axes.layout.top += 2 * line_height;  // for the answer
  axes.layout.width = chart_width + 16;
  const std::size_t legend_rows = (lines.size() + 5) / 2;
  axes.layout.height = chart_height + line_height * static_cast<double>(legend_rows);
  return axes;
}

void append_line(std::string& out, double x1, double y1, double x2, double y2) {
  fmt::format_to(std::back_inserter(out),
                 "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", x1, y1, x2, y2);
}

void append_axes(std::string& out, const Axes& axes) {
  const double bottom = axes.layout.top + chart_height;
  const double rough = (axes.longest - axes.shortest) / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double unit = rough / power >= 5 ? 5 * power : rough / power >= 2 ? 2 * power : power;
  for (int index = static_cast<int>(std::ceil(axes.shortest / unit)); index * unit <= axes.longest; ++index) {
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

/// The line of a schedule, as far as it is in the picture: it leaves at the upper edge and comes back there.
std::string path_of(const Axes& axes, const SweepLine& line) {
  std::string path;
  bool draws = false;
  for (std::size_t index = 0; index < line.points.size(); ++index) {
    const auto is_within = [&](std::size_t other) {
      return other < line.points.size() && line.points[other].step.count <= axes.longest;
    };
    if (!is_within(index) && !is_within(index + 1) && (index == 0 || !is_within(index - 1))) {
      draws = false;
      continue;
    }
    const SweepPoint& point = line.points[index];
    path += fmt::format("{}{:.1f} {:.1f}", draws ? "L" : "M", axes.x(point.microbatches), axes.y(point.step.count));
    draws = true;
  }
  return path;
}

/// \param width so that of lines that coincide each shows within the ones drawn before it.
void append_sweep_line(std::string& out, const Axes& axes, const SweepLine& line, std::string_view colour,
                       double width) {
  fmt::format_to(std::back_inserter(out),
                 "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{:.1f}\" stroke-linejoin=\"round\"/>\n",
                 path_of(axes, line), colour, width);
  for (const SweepPoint& point : line.points) {
    if (point.step.count > axes.longest) continue;
    fmt::format_to(std::back_inserter(out),
                   "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"{}\" stroke=\"{}\"><title>{}, M = {}: "
                   "{:.6g} ms{}</title></circle>\n",
                   axes.x(point.microbatches), axes.y(point.step.count), 1.5 + width / 2, point.fits ? colour : "none",
                   colour, line.name(), point.microbatches, point.step.count,
                   point.fits ? "" : ", does not fit into the memory");
  }
}

/// The range that is close to the best, behind the lines.
void append_range(std::string& out, const Axes& axes, const SweepAnswer& answer) {
  constexpr double margin = 8;
  const double left = axes.x(answer.least) - margin;
  const double lower = axes.y(answer.best->step.count);
  const double upper = axes.y(answer.best->step.count * (1 + close_enough));
  fmt::format_to(std::back_inserter(out),
                 "<rect class=\"row\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"><title>within 3 % "
                 "of the best</title></rect>\n",
                 left, upper, axes.x(answer.most) + margin - left, std::max(lower - upper, 1.0));
}

void append_best(std::string& out, const Axes& axes, const SweepPoint& best) {
  fmt::format_to(std::back_inserter(out),
                 "<circle class=\"best line\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"9\" fill=\"none\" stroke-width=\"2\">"
                 "<title>the best: {}, M = {}</title></circle>\n",
                 axes.x(best.microbatches), axes.y(best.step.count), best.schedule, best.microbatches);
}

/// How far the best of each number of microbatches may be off.
void append_spread(std::string& out, const Axes& axes, const std::vector<SweepPoint>& points, double spread) {
  constexpr double cap = 5;
  for (const auto& [microbatches, best] : best_by_microbatches(points)) {
    const double step = best->step.count;
    if (step > axes.longest) continue;
    const double x = axes.x(microbatches);
    const double upper = axes.y(step * (1 + spread));
    const double lower = axes.y(step * (1 - spread));
    fmt::format_to(
        std::back_inserter(out),
        "<path class=\"line\" d=\"M{0:.1f} {2:.1f}h{4:.1f}m{5:.1f} 0V{3:.1f}m{5:.1f} 0h{4:.1f}\" fill=\"none\" "
        "stroke-width=\"1.5\"><title>M = {1}: {6:.6g} to {7:.6g} ms</title></path>\n",
        x - cap, microbatches, upper, lower, 2 * cap, -cap, step * (1 - spread), step * (1 + spread));
  }
}

/// Two columns below the chart.
void append_legend(std::string& out, const Axes& axes, const std::vector<SweepLine>& lines,
                   const std::vector<std::string>& notes) {
  constexpr double column_width = 255;
  const double top = axes.layout.top + chart_height + 64;
  for (std::size_t index = 0; index < lines.size() + notes.size(); ++index) {
    const double x = axes.layout.left - axis_width + (index % 2 == 0 ? 0 : column_width);
    const std::size_t row = index / 2;
    const double y = top + line_height * static_cast<double>(row);
    const bool is_line = index < lines.size();
    if (is_line)
      fmt::format_to(std::back_inserter(out),
                     "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"4\" fill=\"{}\"/>\n", x, y - 6,
                     line_colours.at(index));
    append_text(out, is_line ? "ink" : "faint", x + (is_line ? 20 : 0), y,
                is_line ? lines[index].name() : notes[index - lines.size()]);
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
                      const std::string& title, double spread) {
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
  const SweepAnswer answer = answer_of(points);
  std::string out;
  append_head(out, axes.layout);
  append_text(out, "ink strong", axes.layout.left - axis_width, axes.layout.top - 2 * line_height - 4,
              sweep_sentence(points));
  append_axes(out, axes);
  if (answer.best != nullptr) append_range(out, axes, answer);
  for (std::size_t index = 0; index < lines.size(); ++index) {
    constexpr double widest = 6;
    constexpr double narrower = 0.6;
    const std::string_view colour = line_colours.at(index);
    append_sweep_line(out, axes, lines[index], colour, widest - narrower * static_cast<double>(index));
    for (const MeasuredPoint& point : drawn)
      if (point.schedule == lines[index].schedule && point.stages_per_rank == lines[index].stages_per_rank)
        append_cross(out, axes, point, colour);
  }
  if (spread > 0) append_spread(out, axes, points, spread);
  if (answer.best != nullptr) append_best(out, axes, *answer.best);
  std::vector<std::string> notes{"ring: the best", "grey: within 3 % of it", "equal lines: one inside the other"};
  if (std::any_of(points.begin(), points.end(), [](const SweepPoint& point) { return !point.fits; }))
    notes.emplace_back("hollow: over the memory");
  if (!drawn.empty()) notes.emplace_back("crosses: measured");
  if (spread > 0) notes.push_back(fmt::format("bars: known to {:.1f} %", spread * 100));
  append_legend(out, axes, lines, notes);
  out += "</svg>\n";
  return out;
}

void include_plans(std::vector<SweepPoint>& points, const std::vector<Plan>& plans) {
  for (const Plan& plan : plans) {
    if (plan.replicas > 1) continue;
    const auto known = std::find_if(points.begin(), points.end(), [&](const SweepPoint& point) {
      return point.schedule == plan.schedule && point.stages_per_rank == plan.stages_per_rank &&
             point.microbatches == plan.microbatches;
    });
    const SweepPoint planned{plan.schedule, plan.stages_per_rank, plan.microbatches, plan.prediction.step, true};
    if (known == points.end())
      points.push_back(planned);
    else if (!known->fits || planned.step < known->step)
      *known = planned;
  }
  std::stable_sort(points.begin(), points.end(), [](const SweepPoint& a, const SweepPoint& b) {
    return std::tie(a.schedule, a.stages_per_rank, a.microbatches) <
           std::tie(b.schedule, b.stages_per_rank, b.microbatches);
  });
}

std::string sweep_sentence(const std::vector<SweepPoint>& points) {
  const SweepAnswer answer = answer_of(points);
  if (answer.best == nullptr) return "nothing fits into the memory";
  const std::string use = fmt::format("use M = {} ({}, {})", answer.best->microbatches, answer.best->schedule,
                                      to_string(answer.best->step));
  if (answer.least == answer.most) return use + "; the numbers next to it are not within 3 %";
  return use + fmt::format("; M of {} to {} are within 3 %", answer.least, answer.most);
}

}  // namespace penstock
