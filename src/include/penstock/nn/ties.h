/// \file
/// Ties as groups: which parameters are one, and whose initial value they take.
#pragma once

#include <string>
#include <vector>

#include "penstock/nn/layer.h"

namespace penstock {

/// Parameters that are one, in two places or more.
struct TieGroup {
  ParameterAddress owner;  ///< whose initial value all members take, and which the norm for clipping counts
  /// The owner among them, by layer, then by name: the order in which their gradients are added.
  std::vector<ParameterAddress> members;

  friend bool operator==(const TieGroup&, const TieGroup&) = default;
};

/// What `ties` make one, in the order of the groups' first members: ties that share a parameter belong together. A tie
/// may stand there twice, and ties may come in any order. \throws Error (BadInput) for a tie of a parameter with
/// itself, and where the ties that belong together have no owner that is nobody's copy, or several.
[[nodiscard]] std::vector<TieGroup> tie_groups(const std::vector<Tie>& ties);

/// The group that a parameter belongs to, or null.
[[nodiscard]] const TieGroup* group_of(const std::vector<TieGroup>& groups, const ParameterAddress& address);

/// For messages. Example: "layer 3 weight".
[[nodiscard]] std::string to_text(const ParameterAddress& address);

}  // namespace penstock
