#include <array>
#include <fmt/format.h>

#include "penstock/base/types.h"

namespace penstock {
namespace {

// The digits before `end`, which the text must have there, and nothing else; it is removed from the text with them.
std::optional<int> take_number(std::string_view& text, std::size_t digits, char end) {
  if (text.size() <= digits || text[digits] != end) return std::nullopt;
  int number = 0;
  for (const char digit : text.substr(0, digits)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    number = 10 * number + (digit - '0');
  }
  text.remove_prefix(digits + 1);
  return number;
}

}  // namespace

WallTime wall_time_now() { return std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now()); }

std::string to_string(WallTime time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count(), clock.subseconds().count());
}

std::optional<WallTime> parse_wall_time(std::string_view text) {
  const bool with_milliseconds = text.find('.') != std::string_view::npos;
  const std::array<std::pair<std::size_t, char>, 6> form{
      {{4, '-'}, {2, '-'}, {2, 'T'}, {2, ':'}, {2, ':'}, {2, with_milliseconds ? '.' : 'Z'}}};
  std::array<int, 7> parts{};
  for (std::size_t part = 0; part < form.size(); ++part) {
    const auto number = take_number(text, form[part].first, form[part].second);
    if (!number) return std::nullopt;
    parts[part] = *number;
  }
  if (with_milliseconds) {
    const auto number = take_number(text, 3, 'Z');
    if (!number) return std::nullopt;
    parts.back() = *number;
  }
  const auto [year, month, day, hour, minute, second, millisecond] = parts;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!text.empty() || !date.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  return std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
         std::chrono::seconds(second) + std::chrono::milliseconds(millisecond);
}

}  // namespace penstock
