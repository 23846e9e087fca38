/// \file
/// The text of page.html, which the build puts into the program.
#pragma once

#include <string_view>

namespace penstock {

/// With the places %TITLE% and %DATA% to be filled.
extern const std::string_view page_template;

}  // namespace penstock
