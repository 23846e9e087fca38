/// \file
/// The text of page.html, which the build puts into the program.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "penstock/report/html.h"

namespace penstock {

/// What a page of a comparison has beside `to_html`'s.
struct PageExtras {
  bool rank_by_rank = false;                      ///< each rank's rows of all timelines below each other
  std::vector<std::vector<std::string>> figures;  ///< a table above the drawing, its head first; empty: none
};

[[nodiscard]] std::string make_page(const std::vector<NamedTimeline>& timelines, const HtmlOptions& options,
                                    const PageExtras& extras);

/// With the places %TITLE% and %DATA% to be filled.
extern const std::string_view page_template;

}  // namespace penstock
