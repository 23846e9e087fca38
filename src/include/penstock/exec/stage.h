/// \file
/// A stage at work: the forward and backward passes of its layers on one microbatch at a time, and what has to be kept
/// between the two.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/exec/microbatch.h"
#include "penstock/nn/buffers.h"
#include "penstock/nn/layer.h"
#include "penstock/nn/modes.h"
#include "penstock/nn/precision.h"

namespace penstock {

/// What a stage is made of.
struct StageParts {
  StageId stage;
  std::int64_t first_layer = 0;  ///< index of `layers.front()` within the network
  std::vector<Layer> layers;     ///< already on `device`
  LossFunction loss;             ///< empty on every stage but the last
  std::vector<Skip> skips;       ///< of the whole network
  at::Device device = at::kCPU;
  std::uint64_t seed = 0;  ///< of the random layers
  /// By layer: whether its forward pass is run again for the backward, so that only its inputs are kept until then.
  /// Empty: none. Between `I` and `W` the graph of what was run again stays.
  std::vector<bool> recompute;
  /// Whether the inputs that recomputation keeps wait in the host's memory. Without effect on a stage of the host.
  bool offload = false;
  bool copied = false;  ///< whether other ranks hold copies of the stage
  Precision precision = Precision::Float32;
  bool check_finite = false;  ///< whether every layer's outputs and the loss are searched for infinities and NaN
};

/// What holds for all microbatches of a step.
struct StepSettings {
  std::int64_t step = 0;  ///< numbers the random layers' draws
  int microbatches = 1;
  bool training = true;
  bool with_loss = true;  ///< whether the last stage computes it
  double loss_scale = 1;  ///< the gradient that the loss starts with
  /// Evaluation only: whether layers remember what they saw, by microbatch, and go on from it.
  Sequences sequences = Sequences::Whole;
  /// By microbatch, if sequences go on: whether what was seen of this one is forgotten first. Beyond the list's end it
  /// is not.
  std::vector<bool> begun_anew = {};
};

class LayerInputs;

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

  /// How many microbatches the step or evaluation has that was begun.
  [[nodiscard]] std::int32_t microbatches() const;

  /// Starts a step or an evaluation, forgetting what an interrupted one left behind.
  void begin(const StepSettings& settings);

  /// Ends an evaluation: modules have again the modes that they had before it.
  void end_evaluation() { evaluation_.reset(); }

  /// F: runs the layers on a boundary: the chain's tensors and then the skips that are carried. A tensor takes part in
  /// the graph where it requires a gradient; any may be undefined. Returns the boundary behind the stage: detached
  /// leaves that require a gradient where the stage's outputs do, and of which the stage keeps nothing. \param targets
  /// of the loss, on the last stage. \throws Error (RunFailed) where the number or the
  /// dtypes of the outputs are not those of earlier microbatches, or a number is not finite and `check_finite` is set;
  /// whatever a layer throws.
  [[nodiscard]] Tensors forward(MicrobatchId microbatch, Tensors inputs, const Tensors& targets);

  /// B: accumulates the weights' gradients and returns the inputs' (undefined for inputs that have none). \param
  /// gradients of the outputs; empty on the stage of the loss, which starts from the loss itself.
  [[nodiscard]] Tensors backward(MicrobatchId microbatch, Tensors gradients);

  /// I: returns the inputs' gradients and puts the weights' off until `weight_backward`.
  [[nodiscard]] Tensors input_backward(MicrobatchId microbatch, Tensors gradients);

  /// W: accumulates what `input_backward` of the same microbatch has put off.
  void weight_backward(MicrobatchId microbatch);

  /// What `input_backward` keeps for `weight_backward` beside the activation: gradients that arrived at layers, some of
  /// which may share their memory with each other or with those that it was given.
  [[nodiscard]] Tensors deferred_gradients(MicrobatchId microbatch) const;

  /// The loss of a microbatch whose forward has run with a target; `sum` is detached.
  [[nodiscard]] const Loss& loss(MicrobatchId microbatch) const;

  /// Whether a layer, by its index within the network, changes its inputs in place, as its first pass has shown; it
  /// gets copies of them.
  [[nodiscard]] bool changes_inputs(std::int64_t layer) const;

  /// The layer that a pass is in, or was in when it threw; none outside of layers.
  [[nodiscard]] std::optional<std::int64_t> current_layer() const { return current_layer_; }

 private:
  // Layers whose graph is kept, or made again, as one.
  struct Segment {
    std::int64_t first = 0;  // within the network
    std::int64_t end = 0;
    bool recompute = false;
  };
  struct SegmentPass;
  struct Pass;

  Pass& pass(MicrobatchId microbatch);
  [[nodiscard]] Tensors run(const Segment& segment, MicrobatchId microbatch, Tensors inputs);
  [[nodiscard]] Tensors run_with_loss(const Segment& segment, MicrobatchId microbatch, Tensors inputs,
                                      const Tensors& targets);
  void run_again(const Segment& segment, MicrobatchId microbatch, SegmentPass& kept);
  // From the last segment to the first, each run again where it has to be.
  template <class Propagate>
  [[nodiscard]] Tensors through_segments(MicrobatchId microbatch, Tensors gradients, const Propagate& propagate);
  void check_dtypes(MicrobatchId microbatch, const Tensors& boundary);
  void check_finite(const Tensors& outputs) const;
  void take_loss(Pass& kept, const Loss& loss) const;
  [[nodiscard]] const at::Tensor& loss_gradient(const at::Tensor& sum);

  StageParts parts_;
  StepSettings settings_;
  std::vector<Segment> segments_;
  std::vector<LayerInputs> inputs_;                 // by layer
  std::vector<LayerBuffers> buffers_;               // by layer
  std::unique_ptr<EvaluationScope> evaluation_;     // during one
  std::vector<Pass> passes_;                        // by microbatch
  std::vector<std::vector<KeyValueCache>> caches_;  // by microbatch and layer
  std::optional<std::int64_t> current_layer_;
  at::Tensor loss_gradient_;
  double loss_gradient_scale_ = 0;
  // Of the first boundary that the stage returned; undefined tensors fit any.
  std::vector<std::optional<at::ScalarType>> dtypes_;
};

}  // namespace penstock
