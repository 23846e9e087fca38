/// \file
/// Values as TOML writes them.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

/// The text in quotes, with escapes for what TOML does not take as it is.
[[nodiscard]] std::string toml_text(std::string_view text);

/// The number with a point or an exponent, so that it is read back as a real number, to the same bits.
[[nodiscard]] std::string toml_text(double value);

}  // namespace penstock
