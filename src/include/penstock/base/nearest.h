/// \file
/// "Did you mean": the known word that is nearest to a misspelt one.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace penstock {

/// How many letters (bytes) have to be added, left out, replaced or swapped with their neighbour to make one word out
/// of the other; no part is changed twice (the optimal string alignment distance).
[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);

/// The word of `known` that is nearest to `unknown`, the first of equally near ones. Nothing if none is near: more
/// than a third of the letters, and more than one, would have to change; or where `unknown` is longer than 64 bytes.
/// Capital letters count as small ones.
[[nodiscard]] std::optional<std::string> nearest_word(std::string_view unknown, std::span<const std::string> known);

/// "; did you mean '--stages'?" for the nearest word, or nothing if none is near: the end of a message.
[[nodiscard]] std::string did_you_mean(std::string_view unknown, std::span<const std::string> known);

}  // namespace penstock
