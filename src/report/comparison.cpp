#include "penstock/report/comparison.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <utility>
#include <vector>

#include "penstock/base/quantile.h"

#include "report/drawing.h"
#include "report/extent.h"
#include "report/page.h"

namespace penstock {
namespace {

using Table = std::vector<std::vector<std::string>>;

/// The two steps as they are drawn and counted.
struct Steps {
  Timeline predicted;
  Timeline measured;

  [[nodiscard]] std::array<std::pair<std::string, const Timeline*>, 2> both() const {
    return {{{"predicted", &predicted}, {"measured", &measured}}};
  }
  [[nodiscard]] std::size_t ranks() const { return std::max(predicted.ranks.size(), measured.ranks.size()); }
};

Timeline as_drawn(const Timeline& timeline, std::size_t ranks) {
  Timeline drawn = from_first_start(compute_actions(timeline));
  drawn.ranks.resize(ranks);
  return drawn;
}

Steps steps_of(const Timeline& predicted, const Timeline& measured) {
  const std::size_t ranks = std::max(predicted.ranks.size(), measured.ranks.size());
  return {as_drawn(predicted, ranks), as_drawn(measured, ranks)};
}

/// Four significant figures, or all that stand before the point.
std::string duration_text(double time, std::string_view unit) {
  if (time <= 0) return fmt::format("0 {}", unit);
  const int before_point = static_cast<int>(std::floor(std::log10(time))) + 1;
  return fmt::format("{:.{}f} {}", time, std::max(4 - before_point, 0), unit);
}

std::string in_tenths(double share) { return fmt::format("{:.1f} %", share * 100); }

/// With its sign, and as a minus what typography calls one.
std::string with_sign(double value, std::string_view unit) {
  const std::string size = fmt::format("{:.1f}", std::abs(value));
  const std::string_view sign = size == "0.0" ? "" : value < 0 ? "−" : "+";
  return fmt::format("{}{} {}", sign, size, unit);
}

Table figures_of(const Steps& steps, std::string_view unit) {
  Table table{{"", "step", "utilisation", "bubble"}};
  for (const auto& [name, timeline] : steps.both())
    table.push_back({name, duration_text(makespan(*timeline).count, unit), in_tenths(utilisation(*timeline)),
                     in_tenths(bubble_makespan(*timeline))});
  const double before = makespan(steps.predicted).count;
  const double after = makespan(steps.measured).count;
  const auto points = [&](const auto& share) {
    return with_sign(100 * (share(steps.measured) - share(steps.predicted)), "points");
  };
  table.push_back({"difference", before > 0 ? with_sign(100 * (after / before - 1), "%") : "–",
                   points([](const Timeline& timeline) { return utilisation(timeline); }),
                   points([](const Timeline& timeline) { return bubble_makespan(timeline); })});
  return table;
}

/// Empty if memory was not counted.
std::string peak_text(const Timeline& timeline, std::size_t rank) {
  const bool counted = rank < timeline.memory.size() && !timeline.memory[rank].empty();
  return counted ? to_string(peak_bytes(timeline, RankId{static_cast<std::int32_t>(rank)})) : "";
}

bool memory_counted(const Steps& steps) {
  // A simulation whose costs have no sizes counts nothing but 0.
  for (const auto& [name, timeline] : steps.both())
    for (std::size_t rank = 0; rank < timeline->memory.size(); ++rank)
      if (peak_bytes(*timeline, RankId{static_cast<std::int32_t>(rank)}).count != 0) return true;
  return false;
}

// Columns of the picture, from the left.
constexpr double rank_width = 64;
constexpr double name_width = 78;
constexpr double memory_width = 86;
constexpr double figure_height = 20;
constexpr double pair_gap = 2;
constexpr double group_gap = 10;

double group_height(const DrawingLayout& layout) { return 2 * layout.row_height + pair_gap + group_gap; }

/// As wide as most boxes need for their numbers, within what a page shows.
double rows_width(const Steps& steps, double duration) {
  constexpr double usual_box_width = 26;
  constexpr double narrow_page = 900;
  constexpr double wide_page = 1500;
  std::vector<double> lengths;
  for (const auto& events : steps.measured.ranks)
    for (const Event& event : events) lengths.push_back(event.end.count - event.start.count);
  if (lengths.empty()) return narrow_page;
  const double usual_length = median(std::move(lengths));
  return usual_length > 0 ? std::clamp(usual_box_width * duration / usual_length, narrow_page, wide_page) : wide_page;
}

DrawingLayout layout_of(const Steps& steps, const std::vector<LegendEntry>& legend, const SvgOptions& options) {
  DrawingLayout layout;
  layout.row_height = 24;
  layout.digits = most_digits({&steps.predicted, &steps.measured});
  layout.title = options.title;
  layout.time_unit = options.time_unit;
  layout.duration = std::max(extent_of(steps.predicted).last, extent_of(steps.measured).last);
  layout.width = std::max(rows_width(steps, layout.duration), narrowest_rows(legend));
  if (layout.duration > 0) layout.scale = layout.width / layout.duration;
  layout.left += rank_width + name_width;
  layout.top += (options.title.empty() ? 0 : title_height) + 4 * figure_height + group_gap;
  if (memory_counted(steps)) {
    layout.left += memory_width;
    layout.top += figure_height;
  }
  layout.height = std::max(static_cast<double>(steps.ranks()) * group_height(layout) - group_gap, layout.row_height);
  return layout;
}

void append_figures(std::string& out, const DrawingLayout& layout, const Table& figures) {
  constexpr double column_width = 100;
  double y = padding + (layout.title.empty() ? 0 : title_height) + figure_height / 2;
  for (std::size_t line = 0; line < figures.size(); ++line) {
    append_text(out, "ink", padding, y, figures[line][0]);
    for (std::size_t column = 1; column < figures[line].size(); ++column)
      append_text(out, line == 0 ? "faint end" : "ink end", padding + column_width * static_cast<double>(column + 1), y,
                  figures[line][column]);
    y += figure_height;
  }
}

}  // namespace

std::string comparison_svg(const Timeline& predicted, const Timeline& measured, const SvgOptions& options) {
  const Steps steps = steps_of(predicted, measured);
  const std::vector<LegendEntry> legend = legend_of({&steps.predicted, &steps.measured});
  const DrawingLayout layout = layout_of(steps, legend, options);
  const double memory_end = layout.left - group_gap;
  std::string out;
  append_head(out, layout);
  append_figures(out, layout, figures_of(steps, options.time_unit));
  if (memory_counted(steps)) append_text(out, "faint end", memory_end, layout.top - group_gap, "activations");
  double first_row = layout.top;
  std::vector<std::vector<double>> rows;
  for (const auto& [name, timeline] : steps.both()) {
    std::vector<double>& row_tops = rows.emplace_back();
    for (std::size_t rank = 0; rank < steps.ranks(); ++rank) {
      const double y = first_row + static_cast<double>(rank) * group_height(layout);
      row_tops.push_back(y);
      if (timeline == &steps.predicted)
        append_text(out, "ink strong", padding, layout.baseline(y), fmt::format("rank {}", rank));
      append_text(out, "ink", padding + rank_width, layout.baseline(y), name);
      if (memory_counted(steps))
        append_text(out, "faint end", memory_end, layout.baseline(y), peak_text(*timeline, rank));
      append_ground(out, layout, y);
    }
    first_row += layout.row_height + pair_gap;
  }
  append_grid_lines(out, layout);
  append_boxes(out, layout, steps.predicted, rows[0]);
  append_boxes(out, layout, steps.measured, rows[1]);
  append_foot(out, layout, legend);
  return out;
}

std::string comparison_html(const Timeline& predicted, const Timeline& measured, const HtmlOptions& options) {
  Steps steps = steps_of(predicted, measured);
  const Table figures = figures_of(steps, options.time_unit);
  return make_page({{"predicted", std::move(steps.predicted)}, {"measured", std::move(steps.measured)}}, options,
                   {.rank_by_rank = true, .figures = figures, .only_activations = true});
}

std::string comparison_text(const Timeline& predicted, const Timeline& measured, std::string_view time_unit) {
  const Steps steps = steps_of(predicted, measured);
  std::string text;
  for (const auto& line : figures_of(steps, time_unit))
    text += fmt::format("{:<10}  {:>12}  {:>12}  {:>12}\n", line[0], line[1], line[2], line[3]);
  if (!memory_counted(steps)) return text;
  // Not the ranks' peak memory, which holds weights, gradients and the optimizer's state besides.
  text += fmt::format("\n{:<10}  {:>12}  {:>12}  at most kept for microbatches, a part of the peak memory\n",
                      "activations", "predicted", "measured");
  for (std::size_t rank = 0; rank < steps.ranks(); ++rank)
    text += fmt::format("{:<10}  {:>12}  {:>12}\n", fmt::format("rank {}", rank), peak_text(steps.predicted, rank),
                        peak_text(steps.measured, rank));
  return text;
}

}  // namespace penstock
