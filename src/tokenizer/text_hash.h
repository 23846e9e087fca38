/// \file
/// A fast hash of short texts, for tables in memory: another build may give another number.
#pragma once

// The functions come with the header, so that nobody links another library.
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <cstdint>
#include <string_view>
#include <xxhash.h>

namespace penstock {

[[nodiscard]] inline std::uint64_t text_hash(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

}  // namespace penstock
