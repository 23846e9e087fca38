#include "report/drawing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <iterator>

#include "penstock/schedule/verify.h"

#include "report/chunks.h"
#include "report/kinds.h"
#include "report/markup.h"

namespace penstock {
namespace {

constexpr double axis_height = 42;
constexpr double legend_height = 30;
constexpr double swatch = 14;

bool any_event(const std::vector<const Timeline*>& timelines, const auto& predicate) {
  for (const Timeline* timeline : timelines)
    for (const auto& events : timeline->ranks)
      if (std::any_of(events.begin(), events.end(), predicate)) return true;
  return false;
}

/// The styles are classes, so that a page in the dark can change all of them at once. Opened by itself, a picture is no
/// wider than its window.
void append_style(std::string& out) {
  out += R"(<style>
svg:root { max-width: 100%; height: auto; }
text { font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; font-size: 13px; }
.page { fill: #ffffff; stroke: #d0d7de; } .row { fill: #eef1f4; } .ink { fill: #1f2328; } .faint { fill: #57606a; }
.pair { fill: #1f2328; } .line { stroke: #8c959f; } .title { font-size: 17px; font-weight: 600; } .number { text-anchor: middle; font-weight: 500; }
.strong { font-weight: 600; } .end { text-anchor: end; font-variant-numeric: tabular-nums; } .grid { stroke: #c4cbd3; stroke-dasharray: 2 3; }
)";
  for (const KindStyle& style : kind_styles)
    fmt::format_to(std::back_inserter(out), ".on-{} {{ fill: {}; }}\n", style.category, style.ink);
  out += R"(@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; stroke: #30363d; } .row { fill: #1c2128; } .ink { fill: #e6edf3; } .faint { fill: #9198a1; }
.line { stroke: #6e7681; } .grid { stroke: #3d444d; }
}
</style>
)";
}

/// A box touches its neighbours in time, and a hairline of the row shows between them.
void append_box(std::string& out, const DrawingLayout& layout, const Event& event, double y, const std::string& fill) {
  constexpr double hairline = 1.2;
  constexpr double digit_width = 7.6;
  const KindStyle& style = style_of(event.action.kind);
  const double left = layout.x(event.start.count);
  const double full = layout.x(event.end.count) - left;
  const double width = full > 3 * hairline ? full - hairline : full;
  fmt::format_to(std::back_inserter(out),
                 R"(<g><title>{}: {} of stage {}, microbatch {}, {:.6g} to {:.6g} {}</title>)"
                 R"(<rect x="{:.2f}" y="{}" width="{:.2f}" height="{}" rx="{}" fill="{}"/>)",
                 to_string(event.action), style.title, event.action.stage.value, event.action.microbatch.value,
                 event.start.count, event.end.count, escape_markup(layout.time_unit), left, y, width, layout.row_height,
                 width > 8 ? 3 : 0, fill);
  const std::string number = fmt::format("{}", event.action.microbatch.value);
  if (width >= digit_width * static_cast<double>(std::max(number.size(), layout.digits)) + 3)
    fmt::format_to(std::back_inserter(out), R"(<text class="number on-{}" x="{:.2f}" y="{}">{}</text>)", style.category,
                   left + width / 2, layout.baseline(y), number);
  out += "</g>\n";
}

/// The two halves of an overlapped pair stand one behind the other: a line below both says that they belong together.
void append_pair(std::string& out, const DrawingLayout& layout, const Event& first, const Event& second, double y) {
  constexpr double thickness = 3;
  constexpr double inset = 2.5;  // so that two pairs in a row are two
  const double left = layout.x(first.start.count) + inset;
  fmt::format_to(std::back_inserter(out),
                 "<rect class=\"pair\" x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\"/>\n", left,
                 y + layout.row_height * 0.8, std::max(layout.x(second.end.count) - left - inset, 0.0), thickness);
}

/// 1, 2 or 5 times a power of ten: the step of an axis whose marks shall be at least `least` apart.
double round_step(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

/// The times of the axis's marks, from its left edge.
std::vector<double> marks_of(const DrawingLayout& layout) {
  constexpr double marks_apart = 64;
  std::vector<double> marks;
  if (layout.scale <= 0) return marks;
  const double step = round_step(marks_apart / layout.scale);
  for (int mark = 0; mark * step <= layout.duration * (1 + 1e-9); ++mark) marks.push_back(mark * step);
  return marks;
}

void append_axis(std::string& out, const DrawingLayout& layout) {
  const double y = layout.top + layout.height + row_gap;
  fmt::format_to(std::back_inserter(out), "<line class=\"line\" x1=\"{0}\" y1=\"{2}\" x2=\"{1:.2f}\" y2=\"{2}\"/>\n",
                 layout.left, layout.left + layout.width, y);
  for (const double mark : marks_of(layout)) {
    const double x = layout.left + mark * layout.scale;
    fmt::format_to(std::back_inserter(out),
                   "<line class=\"line\" x1=\"{0:.2f}\" y1=\"{1}\" x2=\"{0:.2f}\" y2=\"{2}\"/>"
                   "<text class=\"faint\" x=\"{0:.2f}\" y=\"{3}\" text-anchor=\"middle\">{4:.6g}</text>\n",
                   x, y, y + 5, y + 20, mark);
  }
  append_text(out, "faint end", layout.left - 14, y + 20, layout.time_unit);
}

void append_legend(std::string& out, const DrawingLayout& layout, const std::vector<LegendEntry>& legend) {
  double x = layout.left;
  const double y = layout.top + layout.height + axis_height;
  for (const LegendEntry& entry : legend) {
    if (!entry.fill.empty())
      fmt::format_to(std::back_inserter(out), R"(<rect x="{:.1f}" y="{}" width="{}" height="{}" rx="3" fill="{}"/>)", x,
                     y, swatch, swatch, entry.fill);
    fmt::format_to(std::back_inserter(out), "<text class=\"{}\" x=\"{:.1f}\" y=\"{}\">{}</text>\n",
                   entry.fill.empty() ? "faint" : "ink", x + entry.text_offset(), y + 11.5, entry.text);
    x += entry.width();
  }
}

}  // namespace

double LegendEntry::text_offset() const { return fill.empty() ? 0 : swatch + 7; }

double LegendEntry::width() const {
  constexpr double letter_width = 7.1;
  constexpr double gap = 18;
  return text_offset() + letter_width * static_cast<double>(text.size()) + gap;
}

std::vector<LegendEntry> legend_of(const std::vector<const Timeline*>& timelines) {
  std::vector<LegendEntry> legend;
  for (const ActionKind kind :
       {ActionKind::Forward, ActionKind::Backward, ActionKind::InputBackward, ActionKind::WeightBackward})
    if (any_event(timelines, [&](const Event& event) { return event.action.kind == kind; }))
      legend.push_back({style_of(kind).fill, std::string(style_of(kind).title)});
  std::size_t most = 0;
  for (const Timeline* timeline : timelines) most = std::max(most, Chunks(*timeline).most());
  if (most > 1) legend.push_back({"", fmt::format("lighter: the earlier of a rank's {} stages", most)});
  if (any_event(timelines, [](const Event& event) { return event.action.overlaps_next; }))
    legend.push_back({"", "underlined: run together"});
  return legend;
}

std::size_t most_digits(const std::vector<const Timeline*>& timelines) {
  std::int32_t largest = 0;
  for (const Timeline* timeline : timelines)
    for (const auto& events : timeline->ranks)
      for (const Event& event : events) largest = std::max(largest, event.action.microbatch.value);
  return fmt::format("{}", largest).size();
}

double narrowest_rows(const std::vector<LegendEntry>& legend) {
  constexpr double narrowest = 560;
  double width = 0;
  for (const LegendEntry& entry : legend) width += entry.width();
  return std::max(narrowest, width);
}

void append_text(std::string& out, std::string_view classes, double x, double y, std::string_view text) {
  fmt::format_to(std::back_inserter(out), "<text class=\"{}\" x=\"{}\" y=\"{}\">{}</text>\n", classes, x, y,
                 escape_markup(text));
}

void append_head(std::string& out, const DrawingLayout& layout) {
  const double width = layout.left + layout.width + padding;
  const double height = layout.top + layout.height + axis_height + legend_height;
  fmt::format_to(std::back_inserter(out),
                 "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
                 "{1:.0f}\" role=\"img\">\n",
                 width, height);
  append_style(out);
  fmt::format_to(std::back_inserter(out),
                 "<rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{:.0f}\" height=\"{:.0f}\" rx=\"8\"/>\n", width - 1,
                 height - 1);
  if (!layout.title.empty()) append_text(out, "ink title", padding, padding + 14, layout.title);
}

void append_ground(std::string& out, const DrawingLayout& layout, double y) {
  fmt::format_to(std::back_inserter(out),
                 "<rect class=\"row\" x=\"{}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\" rx=\"3\"/>\n", layout.left, y,
                 layout.width, layout.row_height);
}

void append_boxes(std::string& out, const DrawingLayout& layout, const Timeline& timeline,
                  const std::vector<double>& rows) {
  const Chunks chunks(timeline);
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    const Event* first_half = nullptr;
    for (const Event& event : timeline.ranks[rank]) {
      if (!is_compute(event.action.kind)) continue;
      append_box(out, layout, event, rows[rank],
                 shade(style_of(event.action.kind).fill, chunks.of(rank, event.action.stage), chunks.most()));
      if (first_half != nullptr) append_pair(out, layout, *first_half, event, rows[rank]);
      first_half = event.action.overlaps_next ? &event : nullptr;
    }
  }
}

void append_grid_lines(std::string& out, const DrawingLayout& layout) {
  for (const double mark : marks_of(layout))
    fmt::format_to(std::back_inserter(out),
                   "<line class=\"grid\" x1=\"{0:.2f}\" y1=\"{1}\" x2=\"{0:.2f}\" y2=\"{2}\"/>\n",
                   layout.left + mark * layout.scale, layout.top, layout.top + layout.height + row_gap);
}

void append_foot(std::string& out, const DrawingLayout& layout, const std::vector<LegendEntry>& legend) {
  append_axis(out, layout);
  append_legend(out, layout, legend);
  out += "</svg>\n";
}

}  // namespace penstock
