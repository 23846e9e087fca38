/// \file
/// A decoder as a network: one implementation, whose parts the settings choose.
#pragma once

#include <cstdint>
#include <functional>

#include "penstock/models/decoder_settings.h"
#include "penstock/nn/layer.h"

namespace penstock {

/// Writes the weights of a layer that has just been built, in place of initial ones. Called without a graph, once for
/// each layer that a rank builds.
using FillLayer = std::function<void(std::int64_t layer, torch::nn::Module& module)>;

/// Layer 0 embeds tokens (and learned positions), layers 1 … `layers` are blocks, the last layer is the final norm and
/// the head. Where documents are kept apart, the second tensor between layers says which document each token is of.
/// Input int64 [microbatch, context], output [microbatch, context, vocabulary]; where experts have an
/// auxiliary loss, a second output [2, experts]: how many tokens each expert got, and the sum of what the router gave
/// it. Where a microbatch has more logits than `logits_at_once`, the head returns the normed activations and its matrix
/// in their place, from which the loss makes logits a chunk at a time; with a `KeyValueCache` it always returns logits.
/// The loss is the cross entropy of the next tokens, and the auxiliary loss of each microbatch times its weight.
/// \param fill empty: initial weights are drawn.
/// \throws Error (BadInput) as `check_decoder`.
[[nodiscard]] Network make_decoder(const DecoderSettings& settings, const FillLayer& fill = {});

}  // namespace penstock
