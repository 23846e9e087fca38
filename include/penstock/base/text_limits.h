/// \file
/// Limits on a text that are checked before it is parsed: parsers recurse, and need much more memory than the text has
/// bytes.
#pragma once

#include <cstdint>
#include <string_view>

namespace penstock {

/// How much may be in a text.
struct TextLimits {
  int deepest = 16;                    ///< values within values, and parts of a dotted key
  std::int64_t most_values = 500'000;  ///< each of which becomes a value of its own in the parser's memory
};

/// Looks at brackets, commas and strings alone: what is no JSON may pass. \param source names the text in messages.
/// \throws Error (BadInput) that names the source and the line.
void check_json_limits(std::string_view text, std::string_view source, const TextLimits& limits);

/// The same for TOML.
void check_toml_limits(std::string_view text, std::string_view source, const TextLimits& limits);

}  // namespace penstock
