/// \file
/// Limits on a text that are checked before it is parsed: parsers recurse, and need much more memory than the text has
/// bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

/// How much may be in a text.
struct TextLimits {
  int deepest = 16;                    ///< values within values, and parts of a dotted key
  std::int64_t most_values = 500'000;  ///< each of which becomes a value of its own in the parser's memory
};

/// Line ends and tabs in a row between two parts of a JSON text, at most.
inline constexpr std::size_t longest_json_gap = 10'000;

/// The byte at which a gap becomes longer than that; nothing if none does. The JSON parser quotes the whole gap before
/// what it refuses, three times, with eight characters for each line end and tab.
[[nodiscard]] std::optional<std::size_t> find_json_gap(std::string_view text) noexcept;

/// \throws Error (BadInput) that names the source if there is one.
void check_json_gaps(std::string_view text, std::string_view source);

/// Looks at brackets, commas, strings and gaps alone: what is no JSON may pass.
/// \param source names the text in messages.
/// \throws Error (BadInput) that names the source and the line.
void check_json_limits(std::string_view text, std::string_view source, const TextLimits& limits);

/// The same for TOML.
void check_toml_limits(std::string_view text, std::string_view source, const TextLimits& limits);

}  // namespace penstock
