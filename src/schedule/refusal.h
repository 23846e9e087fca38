/// \file
/// How the verifier says no.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// A cell of the grid. `rank` is -1 if there is none.
struct Place {
  std::int32_t rank = -1;
  std::int32_t position = -1;

  [[nodiscard]] bool exists() const { return rank >= 0; }

  friend auto operator<=>(const Place&, const Place&) = default;
};

[[nodiscard]] inline const Action& at(const Schedule& schedule, Place place) {
  return entry(entry(schedule.actions, place.rank), place.position);
}

/// "rank 2, position 5: 2B1": how every refusal begins. Past the end of the row: "rank 2, position 9, the end:".
[[nodiscard]] std::string name_of(const Schedule& schedule, Place place);

/// The rows and columns around `place`, with its cell between `>` and `<`.
[[nodiscard]] std::string neighbourhood(const Schedule& schedule, Place place);

/// The error whose first line is "<place>: <action> <got>; expected …; …" and whose other lines show the neighbourhood.
[[nodiscard]] Error refusal(const Schedule& schedule, Place place, const std::string& got, const std::string& expected,
                            const std::string& remedy);

}  // namespace penstock
