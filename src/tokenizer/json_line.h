/// \file
/// A document on a line of JSON.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

/// The text under `field` in the object that the line holds. Of several under one name the last counts.
/// \param place names the line in messages: "code.jsonl line 3". \throws Error (BadInput) where the line is no object,
/// goes deeper than 64 levels, or has no text under that name.
[[nodiscard]] std::string text_of_json_line(std::string_view line, std::string_view field, const std::string& place);

}  // namespace penstock
