// Causal attention with grouped queries.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <torch/nn/module.h>

#include "penstock/models/decoder_settings.h"
#include "penstock/nn/layer.h"

#include "models/initial.h"
#include "models/norm.h"
#include "models/projection.h"
#include "models/rotary.h"

namespace penstock {

class DecoderAttention : public torch::nn::Module {
 public:
  // \param block from 0.
  DecoderAttention(const DecoderSettings& settings, std::int64_t block, double output_deviation,
                   const Initial& initial);

  // [microbatch, length, width] to the same. \param documents of the tokens, [microbatch, length]; undefined: one.
  at::Tensor forward(const at::Tensor& input, const at::Tensor& documents = {});

 private:
  [[nodiscard]] at::Tensor attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                  const at::Tensor& documents) const;

  std::int64_t heads_;
  std::int64_t key_value_heads_;
  std::int64_t head_size_;
  std::int64_t window_;
  bool positions_restart_;
  std::shared_ptr<Projection> qkv_;
  std::shared_ptr<Norm> query_norm_;  // null: none, as the other
  std::shared_ptr<Norm> key_norm_;
  std::optional<Rotary> rotary_;
  std::shared_ptr<Projection> projection_;
};

}  // namespace penstock
