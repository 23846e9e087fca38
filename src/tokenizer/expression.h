/// \file
/// Oniguruma's regular expressions (Ruby's syntax, which the `tokenizers` package uses), written for PCRE2.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

/// The same expression for PCRE2 with UTF and Unicode properties, `^` and `$` matching at lines. White space, letters
/// of words and scripts mean the same characters; \throws Error (BadInput) that names what cannot be said to PCRE2:
/// sets within sets, intersections of sets, `(?m)`, an interval with `+` behind it, and a few escapes.
/// \param place names the expression in messages.
[[nodiscard]] std::string pcre_expression(std::string_view expression, const std::string& place);

/// A text as a message shows it: control characters and line ends as spaces.
[[nodiscard]] std::string one_line(std::string_view text);

}  // namespace penstock
