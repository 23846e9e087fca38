/// \file
/// How the JSON forms of costs are read: every refusal names the file and the JSON path.
#pragma once

#include <cstdint>
#include <fmt/format.h>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "penstock/base/error.h"
#include "penstock/cost/cost.h"

namespace penstock {

using Json = nlohmann::ordered_json;

inline constexpr double largest_size = 17592186044416.0;   // 2^44: sums of them over a pipeline stay whole
inline constexpr double largest_cap = 9007199254740992.0;  // 2^53: every JSON reader keeps whole numbers up to here
inline constexpr double largest_number = 1e18;
inline constexpr double smallest_number = 1e-18;

/// What is being read and where: "cost.json: stages[2].forward_ms".
struct Place {
  std::string source;
  std::string path;

  [[nodiscard]] Place at(std::string_view key) const {
    return {source, path.empty() ? std::string(key) : fmt::format("{}.{}", path, key)};
  }
  [[nodiscard]] Place at(std::size_t index) const { return {source, fmt::format("{}[{}]", path, index)}; }
  [[nodiscard]] std::string name() const { return path.empty() ? source : fmt::format("{}: {}", source, path); }
};

/// A value as a message shows it: short, and on one line.
[[nodiscard]] std::string shown(const Json& value);

[[nodiscard]] Error refuse(const Place& place, const Json& value, const std::string& expected);

/// Refuses what is not an object, and keys that no reader will ask for: a misspelt one would otherwise be taken for 0.
void require_keys(const Place& place, const Json& object, std::initializer_list<std::string_view> known);

[[nodiscard]] const Json& require(const Place& place, const Json& object, std::string_view key);
[[nodiscard]] double read_number(const Place& place, const Json& value, const std::string& expected, bool zero_allowed);
[[nodiscard]] Milliseconds read_duration(const Place& place, const Json& value);
/// A `weight_activation_share`.
[[nodiscard]] double read_share(const Place& place, const Json& value);
/// A `Cost::contention`.
[[nodiscard]] double read_contention(const Place& place, const Json& value);
[[nodiscard]] bool read_flag(const Place& place, const Json& value);
[[nodiscard]] Bytes read_size(const Place& place, const Json& value, double most = largest_size);
[[nodiscard]] LinkCost read_link(const Place& place, const Json& object);
[[nodiscard]] std::map<RankPair, LinkCost> read_links(const Place& place, const Json& array);

/// \throws Error (BadInput) for what is no JSON, has a key twice in one object or is nested too deeply.
[[nodiscard]] Json parse_json(std::string_view text, std::string_view source);

[[nodiscard]] Json to_json(const LinkCost& link);
[[nodiscard]] Json to_json(const RankPair& pair, const LinkCost& link);

}  // namespace penstock
