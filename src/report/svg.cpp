#include <algorithm>
#include <fmt/format.h>
#include <vector>

#include "penstock/report/report.h"

#include "report/drawing.h"
#include "report/extent.h"

namespace penstock {
namespace {

constexpr double label_width = 64;

DrawingLayout layout_of(const Timeline& timeline, const std::vector<LegendEntry>& legend, const SvgOptions& options) {
  constexpr double usual_box_width = 26;
  // About a screen: of more boxes than that has room for the page of `to_html` shows each when it is zoomed.
  constexpr double widest_picture = 2'000;
  const double narrowest = narrowest_rows(legend);
  const Extent extent = extent_of(timeline);
  DrawingLayout layout;
  layout.title = options.title;
  layout.time_unit = options.time_unit;
  layout.digits = most_digits({&timeline});
  layout.left += label_width;
  layout.first = extent.first;
  layout.duration = extent.last - extent.first;
  if (layout.duration > 0)
    layout.scale = std::min(std::max(usual_box_width / extent.shortest, narrowest / layout.duration),
                            widest_picture / layout.duration);
  layout.width = std::max(layout.duration * layout.scale, narrowest);
  layout.height =
      std::max(static_cast<double>(timeline.ranks.size()) * (layout.row_height + row_gap) - row_gap, layout.row_height);
  if (!options.title.empty()) layout.top += title_height;
  return layout;
}

}  // namespace

std::string to_svg(const Timeline& timeline, const SvgOptions& options) {
  const std::vector<LegendEntry> legend = legend_of({&timeline});
  const DrawingLayout layout = layout_of(timeline, legend, options);
  std::string out;
  append_head(out, layout);
  std::vector<double> rows;
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    rows.push_back(layout.top + static_cast<double>(rank) * (layout.row_height + row_gap));
    append_text(out, "ink", padding, layout.baseline(rows.back()), fmt::format("rank {}", rank));
    append_ground(out, layout, rows.back());
  }
  append_boxes(out, layout, timeline, rows);
  append_foot(out, layout, legend);
  return out;
}

}  // namespace penstock
