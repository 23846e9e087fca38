/// \file
/// Batch norm under microbatches.
///
///     network.layers.push_back(penstock::layer_of<penstock::DeferredBatchNorm>("norm", /*features=*/64));
#pragma once

#include <cstdint>

#include <torch/nn/module.h>

namespace penstock {

/// Batch norm whose running statistics are those of whole minibatches, however they are cut: each microbatch is
/// normalised by its own mean and variance, as every scheme of microbatches has to, and what the running statistics
/// see is gathered over all of them and taken once, at the update (torchgpipe's deferred batch norm, arXiv 2004.09910,
/// section 3). libtorch's own would take M small steps in place of one. Input [microbatch, features, …], any floating
/// dtype; statistics in float32, sums in double.
class DeferredBatchNorm : public torch::nn::Module {
 public:
  /// \param momentum in (0, 1]: the share of the new statistics. \throws Error (BadInput)
  explicit DeferredBatchNorm(std::int64_t features, double momentum = 0.1, double epsilon = 1e-5);

  /// Normalises, in evaluation by the running statistics. A pass within a `RecomputeScope` is not counted again.
  [[nodiscard]] at::Tensor forward(const at::Tensor& input);

  /// The sums since the last `take_minibatch`, [2 × features + 1] in double: of the elements, of their squares, and how
  /// many there were. Copies of a layer add theirs up before they are taken.
  [[nodiscard]] at::Tensor& gathered() { return gathered_; }

  /// Takes what was gathered into the running statistics and begins anew. Called once for each update.
  void take_minibatch();
  /// Begins anew without taking anything: after a step that was interrupted or is not to count.
  void forget_minibatch();

 private:
  double momentum_;
  double epsilon_;
  at::Tensor weight_;
  at::Tensor bias_;
  at::Tensor running_mean_;
  at::Tensor running_var_;
  at::Tensor gathered_;
};

/// While it lives, this thread computes again what it has computed before.
class RecomputeScope {
 public:
  RecomputeScope();
  RecomputeScope(const RecomputeScope&) = delete;
  RecomputeScope& operator=(const RecomputeScope&) = delete;
  RecomputeScope(RecomputeScope&&) = delete;
  RecomputeScope& operator=(RecomputeScope&&) = delete;
  ~RecomputeScope();

  [[nodiscard]] static bool active();

 private:
  bool outer_;
};

}  // namespace penstock
