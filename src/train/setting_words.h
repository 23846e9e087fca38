// Settings that are written in words and mean something else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/base/units.h"

namespace penstock {

// "none", "full", or layers and ranges of them: "1-4,7"; "selected" needs the network and is none of these. Throws
// Error (BadInput) for anything else and for a layer beyond `layers`.
[[nodiscard]] std::vector<bool> recomputed_layers(const std::string& text, std::int64_t layers);

// The layers that are set, in those words: "1-4,7", or "none".
[[nodiscard]] std::string words_of_layers(const std::vector<bool>& layers);

// A number of bytes with its unit: B, KB, MB, GB, KiB, MiB or GiB; 0 for an empty text. Throws Error (BadInput) that
// names the setting.
[[nodiscard]] Bytes parse_bytes(const char* setting, const std::string& text);

}  // namespace penstock
