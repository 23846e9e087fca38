/// \file
/// Settings that are written in words and mean something else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock {

/// "none", "full", or layers and ranges of them: "1-4,7"; "selected" needs the network and is none of these.
/// \throws Error (BadInput) for anything else and for a layer beyond `layers`.
[[nodiscard]] std::vector<bool> recomputed_layers(const std::string& text, std::int64_t layers);

/// The layers that are set, in those words: "1-4,7", or "none".
[[nodiscard]] std::string words_of_layers(const std::vector<bool>& layers);

}  // namespace penstock
