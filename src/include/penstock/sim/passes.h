/// \file
/// Which pass of the ledger an action of a schedule is.
#pragma once

#include <optional>

#include "penstock/cost/ledger.h"
#include "penstock/schedule/verify.h"

namespace penstock {

/// The pass that a compute action is; nothing for a send, a receive and whatever else computes nothing.
[[nodiscard]] constexpr std::optional<Pass> pass_of(ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return Pass::Forward;
    case ActionKind::Backward:
      return Pass::Backward;
    case ActionKind::InputBackward:
      return Pass::InputBackward;
    case ActionKind::WeightBackward:
      return Pass::WeightBackward;
    default:
      return std::nullopt;
  }
}

}  // namespace penstock
