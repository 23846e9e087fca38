// Positions as rotations of queries and keys.
#pragma once

#include <cstdint>
#include <utility>

#include <ATen/core/Tensor.h>

#include "penstock/models/decoder_settings.h"

namespace penstock {

class Rotary {
 public:
  Rotary(const RotarySettings& settings, std::int64_t head_size) : settings_(settings), head_size_(head_size) {}

  // Queries and keys, [microbatch, heads, length, head size], of tokens that begin at position `first`.
  [[nodiscard]] std::pair<at::Tensor, at::Tensor> rotate(const at::Tensor& queries, const at::Tensor& keys,
                                                         std::int64_t first);
  // The same at positions of one's own, [microbatch, length], all below `length`.
  [[nodiscard]] std::pair<at::Tensor, at::Tensor> rotate(const at::Tensor& queries, const at::Tensor& keys,
                                                         const at::Tensor& positions);

 private:
  void make_tables(std::int64_t length, const at::Tensor& like);

  RotarySettings settings_;
  std::int64_t head_size_;
  // [positions, head size], of all positions so far: every microbatch's graph keeps the same ones.
  at::Tensor cosines_;
  at::Tensor sines_;
};

}  // namespace penstock
