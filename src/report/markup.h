/// \file
/// Text and colours for SVG and HTML.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace penstock {

/// The text with what SVG and HTML would take for markup written as entities.
[[nodiscard]] std::string escape_markup(std::string_view text);

/// `colour` (`#rrggbb`) for the stage at `position` of the `count` stages of a rank: the last has the colour itself,
/// those before it are lighter.
[[nodiscard]] std::string shade(std::string_view colour, std::size_t position, std::size_t count);

}  // namespace penstock
