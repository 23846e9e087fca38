/// \file
/// The grid that every paper on pipelines draws: a row a rank, time to the right, a box an action, the microbatch's
/// number in the box and its colour the kind of action. As text for a terminal and as a picture.
#pragma once

#include <string>

#include "penstock/timeline/timeline.h"

namespace penstock {

struct GridOptions {
  bool colour = false;  ///< 256-colour escape sequences; boxes then hold only the microbatch's number
  int width = 0;        ///< characters a line, at least 24; 0: as many as the timeline needs
};

/// The compute actions as text, each line ended by a newline. A column is as long as the shortest action; actions of
/// other lengths are rounded to columns. Without colour a box is the text form of the action (`2F0`) and dashes for the
/// rest of its time. What does not fit into `width` is left out, and a last line says how much.
[[nodiscard]] std::string to_grid(const Timeline& timeline, const GridOptions& options = {});

struct SvgOptions {
  std::string title;             ///< above the picture; empty: none
  std::string time_unit = "ms";  ///< what the time axis counts: "ms", or another word where the times are units
};

/// The compute actions as an SVG picture of its own, readable on light and dark pages, with a title for each box that
/// browsers show on hover. Several stages of one rank are told apart by the lightness of their boxes, the first the
/// lightest.
[[nodiscard]] std::string to_svg(const Timeline& timeline, const SvgOptions& options = {});

}  // namespace penstock
