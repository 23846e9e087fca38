#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <vector>

#include "penstock/report/grid.h"
#include "penstock/schedule/schedule.h"

#include "report/chunks.h"
#include "report/extent.h"
#include "report/kinds.h"
#include "report/markup.h"

namespace penstock {
namespace {

constexpr double box_height = 30;
constexpr double row_gap = 6;
constexpr double padding = 24;
constexpr double label_width = 64;
constexpr double title_height = 34;
constexpr double axis_height = 42;
constexpr double legend_height = 30;
constexpr double usual_box_width = 26;
constexpr double widest_picture = 30'000;

std::array<bool, 4> kinds_in(const Timeline& timeline) {
  std::array<bool, 4> kinds{};
  for (const auto& events : timeline.ranks)
    for (const Event& event : events)
      if (is_compute(event.action.kind)) kinds.at(static_cast<std::size_t>(event.action.kind)) = true;
  return kinds;
}

bool has_pairs(const Timeline& timeline) {
  return std::any_of(timeline.ranks.begin(), timeline.ranks.end(), [](const auto& events) {
    return std::any_of(events.begin(), events.end(), [](const Event& event) { return event.action.overlaps_next; });
  });
}

constexpr double swatch = 14;

struct LegendEntry {
  std::string_view fill;  ///< empty: a note without a colour
  std::string text;

  [[nodiscard]] double text_offset() const { return fill.empty() ? 0 : swatch + 7; }
  /// About as wide as a browser will draw it: the picture must be wide enough before any browser has seen it.
  [[nodiscard]] double width() const {
    constexpr double letter_width = 7.1;
    constexpr double gap = 18;
    return text_offset() + letter_width * static_cast<double>(text.size()) + gap;
  }
};

std::vector<LegendEntry> legend_of(const Timeline& timeline, const Chunks& chunks) {
  std::vector<LegendEntry> legend;
  const auto kinds = kinds_in(timeline);
  for (std::size_t kind = 0; kind < kinds.size(); ++kind)
    if (kinds.at(kind)) legend.push_back({kind_styles.at(kind).fill, std::string(kind_styles.at(kind).title)});
  if (chunks.most() > 1)
    legend.push_back({"", fmt::format("lighter: the earlier of a rank's {} stages", chunks.most())});
  if (has_pairs(timeline)) legend.push_back({"", "underlined: run together"});
  return legend;
}

struct Layout {
  Extent extent;
  double scale = 0;  ///< pixels a millisecond
  double left = padding + label_width;
  double top = padding;
  double width = 0;   ///< of the rows
  double height = 0;  ///< of the rows

  [[nodiscard]] double x(double time) const { return left + (time - extent.first) * scale; }
  [[nodiscard]] double y(std::size_t rank) const { return top + static_cast<double>(rank) * (box_height + row_gap); }
};

Layout layout_of(const Timeline& timeline, const std::vector<LegendEntry>& legend, const SvgOptions& options) {
  constexpr double narrowest = 560;
  double legend_width = 0;
  for (const LegendEntry& entry : legend) legend_width += entry.width();
  const double narrowest_rows = std::max(narrowest, legend_width);
  Layout layout;
  layout.extent = extent_of(timeline);
  const double duration = layout.extent.last - layout.extent.first;
  if (duration > 0)
    layout.scale = std::min(std::max(usual_box_width / layout.extent.shortest, narrowest_rows / duration),
                            widest_picture / duration);
  layout.width = std::max(duration * layout.scale, narrowest_rows);
  layout.height = std::max(static_cast<double>(timeline.ranks.size()) * (box_height + row_gap) - row_gap, box_height);
  if (!options.title.empty()) layout.top += title_height;
  return layout;
}

/// The styles are classes, so that a page in the dark can change all of them at once.
void append_style(std::string& out) {
  out += R"(<style>
text { font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; font-size: 13px; }
.page { fill: #ffffff; stroke: #d0d7de; } .row { fill: #eef1f4; } .ink { fill: #1f2328; } .faint { fill: #57606a; }
.pair { fill: #1f2328; } .line { stroke: #8c959f; } .title { font-size: 17px; font-weight: 600; } .number { text-anchor: middle; font-weight: 500; }
)";
  for (const KindStyle& style : kind_styles)
    fmt::format_to(std::back_inserter(out), ".on-{} {{ fill: {}; }}\n", style.category, style.ink);
  out += R"(@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; stroke: #30363d; } .row { fill: #1c2128; } .ink { fill: #e6edf3; } .faint { fill: #9198a1; }
.line { stroke: #6e7681; }
}
</style>
)";
}

void append_rows(std::string& out, const Timeline& timeline, const Layout& layout) {
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    fmt::format_to(std::back_inserter(out), R"(<text class="ink" x="{}" y="{}">rank {}</text>)", padding,
                   layout.y(rank) + box_height / 2 + 4.5, rank);
    fmt::format_to(std::back_inserter(out),
                   "\n<rect class=\"row\" x=\"{}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\" rx=\"3\"/>\n", layout.left,
                   layout.y(rank), layout.width, box_height);
  }
}

/// A box touches its neighbours in time, and a hairline of the row shows between them.
void append_box(std::string& out, const Event& event, const Layout& layout, std::size_t rank, const std::string& fill,
                const SvgOptions& options) {
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
                 event.start.count, event.end.count, escape_markup(options.time_unit), left, layout.y(rank), width,
                 box_height, width > 8 ? 3 : 0, fill);
  const std::string number = fmt::format("{}", event.action.microbatch.value);
  if (width >= digit_width * static_cast<double>(number.size()) + 3)
    fmt::format_to(std::back_inserter(out), R"(<text class="number on-{}" x="{:.2f}" y="{}">{}</text>)", style.category,
                   left + width / 2, layout.y(rank) + box_height / 2 + 4.5, number);
  out += "</g>\n";
}

/// The two halves of an overlapped pair stand one behind the other: a line below both says that they belong together.
void append_pair(std::string& out, const Event& first, const Event& second, const Layout& layout, std::size_t rank) {
  constexpr double thickness = 3;
  constexpr double inset = 2.5;  // so that two pairs in a row are two
  const double left = layout.x(first.start.count) + inset;
  fmt::format_to(
      std::back_inserter(out), "<rect class=\"pair\" x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\"/>\n", left,
      layout.y(rank) + box_height - 2 * thickness, std::max(layout.x(second.end.count) - left - inset, 0.0), thickness);
}

/// 1, 2 or 5 times a power of ten: the step of an axis whose marks shall be at least `least` apart.
double round_step(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

void append_axis(std::string& out, const Layout& layout, const SvgOptions& options) {
  constexpr double marks_apart = 64;
  const double y = layout.top + layout.height + row_gap;
  const double duration = layout.extent.last - layout.extent.first;
  fmt::format_to(std::back_inserter(out), "<line class=\"line\" x1=\"{0}\" y1=\"{2}\" x2=\"{1:.2f}\" y2=\"{2}\"/>\n",
                 layout.left, layout.left + layout.width, y);
  if (layout.scale > 0) {
    const double step = round_step(marks_apart / layout.scale);
    for (int mark = 0; mark * step <= duration * (1 + 1e-9); ++mark) {
      const double x = layout.left + mark * step * layout.scale;
      fmt::format_to(std::back_inserter(out),
                     "<line class=\"line\" x1=\"{0:.2f}\" y1=\"{1}\" x2=\"{0:.2f}\" y2=\"{2}\"/>"
                     "<text class=\"faint\" x=\"{0:.2f}\" y=\"{3}\" text-anchor=\"middle\">{4:.6g}</text>\n",
                     x, y, y + 5, y + 20, mark * step);
    }
  }
  fmt::format_to(std::back_inserter(out), "<text class=\"faint\" x=\"{}\" y=\"{}\">{}</text>\n", padding, y + 20,
                 escape_markup(options.time_unit));
}

void append_legend(std::string& out, const std::vector<LegendEntry>& legend, const Layout& layout) {
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

std::string to_svg(const Timeline& timeline, const SvgOptions& options) {
  const Chunks chunks(timeline);
  const std::vector<LegendEntry> legend = legend_of(timeline, chunks);
  const Layout layout = layout_of(timeline, legend, options);
  const double width = layout.left + layout.width + padding;
  const double height = layout.top + layout.height + axis_height + legend_height;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "role=\"img\">\n",
      width, height);
  append_style(out);
  fmt::format_to(std::back_inserter(out),
                 "<rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{:.0f}\" height=\"{:.0f}\" rx=\"8\"/>\n", width - 1,
                 height - 1);
  if (!options.title.empty())
    fmt::format_to(std::back_inserter(out), "<text class=\"ink title\" x=\"{}\" y=\"{}\">{}</text>\n", padding,
                   padding + 14, escape_markup(options.title));
  append_rows(out, timeline, layout);
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    const Event* first_half = nullptr;
    for (const Event& event : timeline.ranks[rank]) {
      if (!is_compute(event.action.kind)) continue;
      append_box(out, event, layout, rank,
                 shade(style_of(event.action.kind).fill, chunks.of(rank, event.action.stage), chunks.most()), options);
      if (first_half != nullptr) append_pair(out, *first_half, event, layout, rank);
      first_half = event.action.overlaps_next ? &event : nullptr;
    }
  }
  append_axis(out, layout, options);
  append_legend(out, legend, layout);
  out += "</svg>\n";
  return out;
}

}  // namespace penstock
