/// \file
/// Sizes as people write them.
#pragma once

#include <string>
#include <string_view>

#include "penstock/base/types.h"

namespace penstock {

/// "500MB", "12GiB", "1.5 KiB": a number above 0 with its unit, one of B, KB, MB, GB, KiB, MiB and GiB.
/// \param setting the setting's name in the message: "--memory". \throws Error (BadInput) for anything else, and for
/// less than a byte or more than a `Bytes` holds.
[[nodiscard]] Bytes parse_bytes(std::string_view setting, const std::string& text);

/// The same size to the byte, as `parse_bytes` reads it, in the largest unit that it is a multiple of: "12GiB".
[[nodiscard]] std::string bytes_text(Bytes size);

}  // namespace penstock
