/// \file
/// JSON from files that may be damaged or hostile, as a stream of events: nothing is built in memory, so what a file
/// can make its reader hold is what the reader decides to keep.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace penstock {

struct ObjectStart {};
struct ObjectEnd {};
struct ArrayStart {};

/// What an event carries. Strings are moved out of the parser.
using JsonEvent = std::variant<ObjectStart, ObjectEnd, ArrayStart, std::uint64_t, std::string>;

/// Reads one JSON object made of objects, arrays, strings and unsigned integers; everything else that JSON knows is
/// refused, as no format of this room uses it. `visit` gets the keys that lead to a value and the value; the elements
/// of an array have the array's keys. Repeated keys come as they stand: refusing them is up to `visit`.
/// \param deepest how many objects and arrays may lie in each other.
/// \return what is wrong with the text, as the end of a sentence; empty where nothing is. What `visit` throws goes on.
[[nodiscard]] std::string read_json(std::string_view text, std::size_t deepest,
                                    const std::function<void(std::span<const std::string>, JsonEvent&&)>& visit);

/// Text out of a file, fit for a message of one line: quoted, escaped, cut after 60 bytes.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// The same text as a JSON string. \throws Error (BadInput) where it is not UTF-8.
[[nodiscard]] std::string json_string(const std::string& text);

}  // namespace penstock
