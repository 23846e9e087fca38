/// \file
/// What was measured against what was predicted: one step, simulated and executed, over one time axis.
///
/// In all of them only compute actions count, and both steps begin where their first one starts. Step: the makespan.
/// Utilisation and bubble: the shares of ranks × makespan in which ranks compute and do not compute. The difference is
/// the measured less the predicted, in percent of the predicted step and in points of a percentage. Peak memory stands
/// where `Timeline::memory` is filled in. A rank that only one of the two has stays empty in the other.
#pragma once

#include <string>
#include <string_view>

#include "penstock/report/report.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// An SVG picture like `to_svg`'s, in which each rank's predicted row stands above its measured one. About as wide as a
/// page, however long the steps are; boxes too narrow for their number have none.
[[nodiscard]] std::string comparison_svg(const Timeline& predicted, const Timeline& measured,
                                         const SvgOptions& options = {});

/// A page like `to_html`'s, with the rows as in the picture.
[[nodiscard]] std::string comparison_html(const Timeline& predicted, const Timeline& measured,
                                          const HtmlOptions& options = {});

/// The figures alone as a table of four lines, and below it a line for each rank where memory was counted.
/// \param time_unit as in the options of the pictures.
[[nodiscard]] std::string comparison_text(const Timeline& predicted, const Timeline& measured,
                                          std::string_view time_unit = "ms");

}  // namespace penstock
