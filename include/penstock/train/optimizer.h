/// \file
/// How weights change: SGD with momentum and AdamW, with libtorch's fused kernels.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace penstock {

/// What an update does with a gradient.
struct OptimizerSettings {
  std::string kind = "adamw";  ///< "adamw" (arXiv 1711.05101) or "sgd"
  /// Decoupled for AdamW, added to the gradient for SGD. Acts on matrices and convolution kernels only: biases, norms
  /// and everything else of one dimension is left alone. Typical: 0.1.
  double weight_decay = 0.1;
  double momentum = 0.9;  ///< of SGD
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;

  friend bool operator==(const OptimizerSettings&, const OptimizerSettings&) = default;
};

/// The parameters of one rank and the state that their updates keep. Belongs to that rank's thread.
class Optimizer {
 public:
  using Named = std::pair<std::string, at::Tensor>;

  /// \param parameters named as in checkpoints; shared, not copied. \throws Error (BadInput) for an unknown kind or
  /// settings out of range.
  Optimizer(OptimizerSettings settings, std::vector<Named> parameters);

  /// One update with the gradients that the parameters hold; those without one stay as they are.
  void update(double learning_rate);

  /// Copies the weights and the state, for one `take_back`.
  void keep();
  /// Undoes, to the bit, all updates since `keep`, and lets go of the copies.
  void take_back();
  /// Lets go of the copies.
  void let_go() { kept_.clear(); }

  [[nodiscard]] std::int64_t updates() const { return updates_; }

  /// The state, by name ("momentum.layers.0.linear.weight"): shared tensors, to be written to a checkpoint or over from
  /// it.
  [[nodiscard]] std::vector<Named> state() const;

  /// Continues the count of updates, after `state` has been filled from a checkpoint.
  void resume(std::int64_t updates) { updates_ = updates; }

 private:
  struct Entry {
    std::string name;
    at::Tensor parameter;
    std::vector<at::Tensor> moments;  // SGD: momentum; AdamW: first and second
  };
  void update_group(const std::vector<Entry>& group, double weight_decay, double learning_rate) const;

  [[nodiscard]] std::vector<at::Tensor> everything() const;  // weights and state

  OptimizerSettings settings_;
  std::vector<Entry> decaying_;
  std::vector<Entry> others_;
  std::int64_t updates_ = 0;
  std::vector<at::Tensor> kept_;  // as `everything`
  std::int64_t kept_updates_ = 0;
};

/// A learning rate for each step: a linear warm-up to `peak`, then a cosine down to `peak` × `final_share` at `steps`.
struct LearningRate {
  double peak = 1e-3;
  std::int64_t warmup = 0;
  std::int64_t steps = 1;
  double final_share = 0.1;

  /// \param step counted from 0.
  [[nodiscard]] double at(std::int64_t step) const;
};

}  // namespace penstock
