/// \file
/// Layers that stay as they are while others learn.
#pragma once

#include <vector>

#include "penstock/nn/layer.h"

namespace penstock {

/// The network with layers whose parameters get no gradient, no update and no optimizer state. What is tied to one of
/// them stays too. \param frozen by layer; shorter or empty: the others are not. Where all layers up to one are frozen,
/// no gradient goes back to them.
/// \throws Error (BadInput) where all layers are.
[[nodiscard]] Network with_frozen_layers(Network network, const std::vector<bool>& frozen);

}  // namespace penstock
