/// \file
/// What every SVG picture of timelines is made of: rows of boxes over one time axis, and a legend.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/timeline/timeline.h"

namespace penstock {

inline constexpr double padding = 24;       ///< around a picture
inline constexpr double row_gap = 6;        ///< between a row and what is not of its group
inline constexpr double title_height = 34;  ///< that a title adds to `padding`

/// An entry of the legend.
struct LegendEntry {
  std::string_view fill;  ///< CSS colour; empty: a note without one
  std::string text;

  [[nodiscard]] double text_offset() const;
  /// About as wide as a browser will draw it: the picture must be wide enough before any browser has seen it.
  [[nodiscard]] double width() const;
};

/// What the boxes of these timelines need explained.
[[nodiscard]] std::vector<LegendEntry> legend_of(const std::vector<const Timeline*>& timelines);

/// The least width of rows below which the legend has room on one line.
[[nodiscard]] double narrowest_rows(const std::vector<LegendEntry>& legend);

/// Of the largest microbatch: numbers that stop at 9 because 10 is wider look like an error.
[[nodiscard]] std::size_t most_digits(const std::vector<const Timeline*>& timelines);

/// Where things are, in pixels from the upper left.
struct DrawingLayout {
  double first = 0;     ///< the time at the left edge of the rows
  double duration = 0;  ///< up to the last end
  double scale = 0;     ///< pixels a millisecond
  double left = padding;
  double top = padding;
  double width = 0;        ///< of the rows
  double height = 0;       ///< of the rows
  double row_height = 30;  ///< of each
  /// Digits that a box must have room for to show its number; where that is fewer than it has, its own count.
  std::size_t digits = 1;
  std::string title;
  std::string time_unit;

  [[nodiscard]] double x(double time) const { return left + (time - first) * scale; }
  /// Where the text of the row at `y` stands.
  [[nodiscard]] double baseline(double y) const { return y + row_height / 2 + 4.5; }
};

/// Appends text. \param classes of the style, such as "ink" or "faint end". \param text is escaped.
void append_text(std::string& out, std::string_view classes, double x, double y, std::string_view text);

/// The beginning of a picture: its size, styles, page and title.
void append_head(std::string& out, const DrawingLayout& layout);

/// The ground of a row.
void append_ground(std::string& out, const DrawingLayout& layout, double y);

/// The boxes of all compute actions; several stages of one rank differ in lightness. \param rows the upper edges of
/// the ranks' rows.
void append_boxes(std::string& out, const DrawingLayout& layout, const Timeline& timeline,
                  const std::vector<double>& rows);

/// Thin lines through all rows at the marks of the axis.
void append_grid_lines(std::string& out, const DrawingLayout& layout);

/// Axis, legend and the end of the picture.
void append_foot(std::string& out, const DrawingLayout& layout, const std::vector<LegendEntry>& legend);

}  // namespace penstock
