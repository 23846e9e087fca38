/// \file
/// The texts of the pages, which the build puts into the program, and how they are filled.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/report/report.h"

namespace penstock {

/// What a page of a comparison has beside `to_html`'s.
struct PageExtras {
  bool rank_by_rank = false;                      ///< each rank's rows of all timelines below each other
  std::vector<std::vector<std::string>> figures;  ///< a table above the drawing, its head first; empty: none
  bool only_activations = false;  ///< memory is what is kept for microbatches, not all that a rank holds
};

[[nodiscard]] std::string make_page(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options,
                                    const PageExtras& extras);

/// What `show_timelines` of timeline_chart.js draws.
[[nodiscard]] nlohmann::ordered_json chart_data(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options,
                                                const PageExtras& extras);

/// JSON within a script element: a `<` in a name must not end it.
[[nodiscard]] std::string to_script(const nlohmann::ordered_json& data);

/// A place of a template, such as %TITLE%, and what stands there.
using Filling = std::pair<std::string_view, std::string>;

/// The template with its places filled, each as often as it is there. One pass from front to back, so that a name that
/// looks like a place is not filled.
[[nodiscard]] std::string fill(std::string_view page, const std::vector<Filling>& fillings);

/// The page of timelines, with the places %TITLE%, %CHART% and %DATA% to be filled.
extern const std::string_view page_template;

/// The page of runs, with the places %TITLE%, %RELOAD%, %CHART%, %CURVES% and %DATA%.
extern const std::string_view run_page_template;

/// timeline_chart.js, which both pages draw timelines with.
extern const std::string_view timeline_chart;

/// run_curves.js, which the page of runs draws curves and bars with.
extern const std::string_view run_curves;

}  // namespace penstock
