/// \file
/// Calendar time, for people and for logs. Durations are measured with a `Clock`.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

/// A point of UTC, to the millisecond.
using WallTime = std::chrono::sys_time<std::chrono::milliseconds>;

/// The present time by the machine's clock.
[[nodiscard]] WallTime wall_time_now();

/// "2026-11-29T09:30:58.123Z", as ISO 8601 has it.
[[nodiscard]] std::string to_string(WallTime time);

/// Reads what `to_string` writes, also without milliseconds. Nothing if the text is no such time.
[[nodiscard]] std::optional<WallTime> parse_wall_time(std::string_view text);

}  // namespace penstock
