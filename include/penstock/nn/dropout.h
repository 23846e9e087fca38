/// \file
/// Dropout whose mask depends on (seed, step, microbatch, layer) alone, so that it is the same on any number of stages
/// and can be drawn again.
#pragma once

#include <cstdint>

#include <torch/nn/module.h>

namespace penstock {

/// Where in a run a layer is being computed.
struct DrawPlace {
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  std::int64_t microbatch = 0;
  std::int64_t layer = 0;
};

/// While it lives, random layers of this thread draw for `place`; the n-th draw within it always gives the same
/// numbers. Scopes nest.
class DrawScope {
 public:
  explicit DrawScope(const DrawPlace& place);
  DrawScope(const DrawScope&) = delete;
  DrawScope& operator=(const DrawScope&) = delete;
  DrawScope(DrawScope&&) = delete;
  DrawScope& operator=(DrawScope&&) = delete;
  ~DrawScope();

  /// A key for the next draw of the innermost scope of this thread. \throws Error (RunFailed) where there is none.
  [[nodiscard]] static std::uint64_t next_key();

 private:
  DrawPlace place_;
  std::uint64_t draws_ = 0;
  DrawScope* outer_;
};

/// Zeroes each element with `probability` in training and scales the others by 1 / (1 − probability); passes everything
/// in evaluation. Any shape, any floating dtype.
class Dropout : public torch::nn::Module {
 public:
  /// \param probability in [0, 1). \throws Error (BadInput)
  explicit Dropout(double probability);
  /// The input with each value dropped with the set probability, and the kept ones scaled up; of any shape.
  [[nodiscard]] at::Tensor forward(const at::Tensor& input) const;

 private:
  double probability_;
};

}  // namespace penstock
