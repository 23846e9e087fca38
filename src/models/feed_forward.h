// What a block does with each token by itself: one feed-forward, or a few of several experts.
#pragma once

#include <cstdint>
#include <memory>

#include <torch/nn/module.h>

#include "penstock/models/decoder_settings.h"

#include "models/initial.h"
#include "models/projection.h"

namespace penstock {

// A plain one widens, bends and narrows. A gated one widens twice: the first half is bent and multiplied with the
// second.
class DecoderFeedForward : public torch::nn::Module {
 public:
  DecoderFeedForward(const DecoderSettings& settings, double output_deviation, const Initial& initial);

  // [..., width] to the same
  at::Tensor forward(const at::Tensor& input);

 private:
  bool gated_;
  Activation activation_;
  std::shared_ptr<Projection> widen_;
  std::shared_ptr<Projection> projection_;
};

// What experts return beside their output.
struct Routed {
  at::Tensor output;
  at::Tensor balance;  // [2, experts]: the tokens that each got, and the sum of its shares
};

class Experts : public torch::nn::Module {
 public:
  Experts(const DecoderSettings& settings, double output_deviation, const Initial& initial);

  // [microbatch, length, width] to the same
  Routed forward(const at::Tensor& input);

 private:
  ExpertSettings settings_;
  Activation activation_;
  at::Tensor router_;      // [experts, width]
  at::Tensor widen_;       // [experts, 2 × inner width, width]
  at::Tensor projection_;  // [experts, width, inner width]
};

}  // namespace penstock
