/// \file
/// A stage at work: the forward and backward passes of its layers on one microbatch at a time, and what has to be kept
/// between the two.
#pragma once

#include <cstdint>
#include <vector>

#include "penstock/base/ids.h"
#include "penstock/nn/layer.h"

namespace penstock {

/// What a stage is made of.
struct StageParts {
  StageId stage;
  std::int64_t first_layer = 0;  ///< index of `layers.front()` within the network
  std::vector<Layer> layers;     ///< already on `device`
  LossFunction loss;             ///< empty on every stage but the last
  at::Device device = at::kCPU;
  std::uint64_t seed = 0;  ///< of the random layers
};

/// The gradients of a stage's weights that an input-gradient pass has put off.
struct DeferredWeightGradients;

/// Runs one stage. Not thread-safe: it belongs to its rank's thread.
class Stage {
 public:
  explicit Stage(StageParts parts);
  Stage(Stage&&) noexcept;
  Stage& operator=(Stage&&) noexcept;
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  ~Stage();

  [[nodiscard]] StageId id() const { return parts_.stage; }
  [[nodiscard]] std::int64_t first_layer() const { return parts_.first_layer; }
  [[nodiscard]] const std::vector<Layer>& layers() const { return parts_.layers; }
  [[nodiscard]] at::Device device() const { return parts_.device; }
  [[nodiscard]] bool has_loss() const { return static_cast<bool>(parts_.loss); }

  /// Starts a step (`training`) or an evaluation of `microbatches`, forgetting what an interrupted one left behind.
  void begin(std::int64_t step, int microbatches, bool training);

  /// F: runs the layers. In training the graph is kept until the backward pass, and the inputs are cut off from where
  /// they came from. \param target defined on the last stage where a loss is wanted. Returns the detached outputs.
  [[nodiscard]] Tensors forward(MicrobatchId microbatch, Tensors inputs, const at::Tensor& target);

  /// B: accumulates the weights' gradients and returns the inputs' (undefined for inputs that have none). \param
  /// gradients of the outputs; empty on the stage of the loss, which starts from the loss itself.
  [[nodiscard]] Tensors backward(MicrobatchId microbatch, Tensors gradients);

  /// I: returns the inputs' gradients and puts the weights' off until `weight_backward`.
  [[nodiscard]] Tensors input_backward(MicrobatchId microbatch, Tensors gradients);

  /// W: accumulates what `input_backward` of the same microbatch has put off.
  void weight_backward(MicrobatchId microbatch);

  /// The loss of a microbatch whose forward has run with a target; `sum` is detached.
  [[nodiscard]] const Loss& loss(MicrobatchId microbatch) const;

 private:
  struct Pass;
  Pass& pass(MicrobatchId microbatch);

  StageParts parts_;
  std::vector<Pass> passes_;  // by microbatch
  std::int64_t step_ = 0;
  bool training_ = true;
};

}  // namespace penstock
