/// \file
/// The networks that penstock brings along, each a list of layers.
///
///     const penstock::GptSettings small{.vocabulary = 50257, .layers = 12, .width = 768, .heads = 12};
///     const penstock::Network network = penstock::make_gpt(small);
#pragma once

#include <cstdint>

#include "penstock/nn/layer.h"

namespace penstock {

/// A decoder-only transformer (GPT-2's shape): layer 0 embeds tokens and positions, layers 1 … `layers` are pre-norm
/// blocks of causal attention and a GELU feed-forward of four times the width, the last layer is the final norm and the
/// head. Input int64 [microbatch, context], output [microbatch, context, vocabulary].
struct GptSettings {
  std::int64_t vocabulary = 256;
  std::int64_t layers = 8;
  std::int64_t width = 128;
  std::int64_t heads = 4;  ///< must divide the width
  std::int64_t context = 128;
  double dropout = 0;      ///< after the embedding and on each residual branch
  bool tied_head = false;  ///< the head's weight is the token embedding's
};

/// `layers` hidden layers of `width` with ReLU and a linear one to the classes; layer 0 also flattens.
/// Input float [microbatch, …] of `inputs` elements a sample, output [microbatch, classes].
struct MlpSettings {
  std::int64_t inputs = 784;
  std::int64_t layers = 4;
  std::int64_t width = 128;
  std::int64_t classes = 10;
  double dropout = 0;
};

/// A stem, `layers` residual blocks of two 3×3 convolutions with group norm, every second block at half the resolution
/// while it stays at least 4, and a head over the spatial mean. Input float [microbatch, channels, rows, columns],
/// output [microbatch, classes].
struct ConvnetSettings {
  std::int64_t channels = 1;
  std::int64_t rows = 28;
  std::int64_t columns = 28;
  std::int64_t layers = 4;
  std::int64_t width = 32;
  std::int64_t groups = 8;  ///< of the group norms; must divide the width
  std::int64_t classes = 10;
  double dropout = 0;
};

/// \throws Error (BadInput) where sizes are below 1 or do not divide.
[[nodiscard]] Network make_gpt(const GptSettings& settings);
/// As make_gpt, of fully connected layers.
[[nodiscard]] Network make_mlp(const MlpSettings& settings);
/// As make_gpt, of residual blocks of convolutions.
[[nodiscard]] Network make_convnet(const ConvnetSettings& settings);

/// Sum of the cross entropies in nats of logits [..., classes], the first output, against int64 classes [...], the
/// first target; those of `ignored` count neither in the sum nor in the weight. Computed in float32 at least.
[[nodiscard]] Loss cross_entropy(const Tensors& outputs, const Tensors& targets, std::int64_t ignored = -100);

/// Sum of the squared errors of the first output's elements against the first target's of the same shape; the weight is
/// their number, so that a minibatch's loss is the mean over all elements, as torch's `mse_loss`. Computed in float32
/// at least.
[[nodiscard]] Loss squared_error(const Tensors& outputs, const Tensors& targets);

/// How long a waiting layer waits, in milliseconds.
struct WaitingTimes {
  double forward_ms = 10;
  double input_backward_ms = 5;   ///< in `I`, and in `B`; in `W` where the layer's input needs no gradient
  double weight_backward_ms = 5;  ///< in `W`, and in `B`

  friend bool operator==(const WaitingTimes&, const WaitingTimes&) = default;
};

/// A stand-in for a device: a layer that computes nothing and waits in each of its passes, without using the processor.
/// For lessons and measurements of the schedule alone.
[[nodiscard]] LayerSpec waiting_layer(const WaitingTimes& times);

}  // namespace penstock
