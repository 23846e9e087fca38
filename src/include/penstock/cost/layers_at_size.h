/// \file
/// The layers of a network at one microbatch size, ready to be asked for any stage: what the search for a cut stands
/// on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"

namespace penstock {

/// How a stage is run.
struct StageRun {
  bool recomputed = false;     ///< its layers keep only their inputs and run again in the backward
  bool split_backward = true;  ///< as `I` and `W`; in one piece otherwise, and then only the sum of the two is right
  double speed = 1;            ///< of its rank
  bool sent = true;            ///< its output goes to another rank, and not to a stage of its own
  int kept_gradients = 0;      ///< of runs of microbatches, beside the one that is added to; see `GradientRuns`
};

/// All layers at one microbatch size, ready to be asked for any stage. Immutable, thread-safe.
class LayersAtSize {
 public:
  /// Interpolates between the measured sizes. \param samples may be a fraction: the mean of microbatches of two sizes,
  /// for which times are exact. Sizes in bytes are those of the next whole number. \throws Error (BadInput) for samples
  /// that no interpolation reaches, naming the layer and its measured sizes; and for costs that `validate` refuses.
  LayersAtSize(const LayerCosts& costs, double samples);

  /// The layers from `first` up to `end`, excluded, as one stage. O(1) but for the workspaces, which are looked up.
  [[nodiscard]] StageCost stage(std::size_t first, std::size_t end, const StageRun& run) const;
  /// The time of one microbatch on that stage, forward and backward.
  [[nodiscard]] Milliseconds time(std::size_t first, std::size_t end, const StageRun& run) const;
  /// The update of their weights.
  [[nodiscard]] Milliseconds update(std::size_t first, std::size_t end) const;
  /// Whether a gradient comes back over a cut after `layer`.
  [[nodiscard]] bool gradient_returns(std::size_t layer) const { return layer >= without_gradient_; }
  /// What crosses a cut after `layer`.
  [[nodiscard]] Bytes boundary_after(std::size_t layer) const { return {boundary_[layer]}; }
  [[nodiscard]] std::size_t layers() const { return sums_.size() - 1; }

 private:
  /// Of all layers before one.
  struct Sums {
    double forward = 0;
    double run_again = 0;  ///< a forward, of the layers that recomputation runs again
    double input_backward = 0;
    double weight_backward = 0;
    double backward = 0;
    double update = 0;
    std::int64_t activation = 0;
    std::int64_t held_for_weights = 0;
    std::int64_t deferred = 0;
    std::int64_t released_in_weights = 0;  ///< what a `W` frees while it runs
    std::int64_t input = 0;
    std::int64_t parameter = 0;
    std::int64_t gradient = 0;
    std::int64_t optimizer = 0;
  };
  /// What one layer has at the end of a stage.
  struct AtEnd {
    std::int64_t kept_output = 0;
    std::int64_t backward = 0;  ///< workspace, where the output's gradient came from another rank
    std::int64_t input_backward = 0;
    std::int64_t weight = 0;
    std::int64_t deferred = 0;
  };
  /// A workspace, and how much of the gradients is there when the first pass of a step takes it.
  struct Workspace {
    std::int64_t most = 0;
    std::int64_t gradient = 0;
  };
  /// The largest of any run of layers, by the run's first and last layer.
  class Largest {
   public:
    void fill(const std::vector<std::int64_t>& values);
    [[nodiscard]] std::int64_t of(std::size_t first, std::size_t end) const;

   private:
    std::vector<std::vector<std::int64_t>> by_power_;  ///< by power of two, then by first layer
  };

  /// Workspaces counted from the network's beginning, so that what the later layers have freed, or not taken yet, is
  /// one difference. By layer.
  struct Comparable {
    std::vector<std::int64_t> forward;
    std::vector<std::int64_t> backward;
    std::vector<std::int64_t> recomputed_forward;
    std::vector<std::int64_t> recomputed;
    std::vector<std::int64_t> input_backward;
    std::vector<std::int64_t> recomputed_input;
    std::vector<std::int64_t> weight;
  };
  struct Passed {
    Largest value;
    Largest with_gradients;  ///< beside those of the layers behind
  };

  void add_memory(const LayerAtSize& here, double weight_activation_share, Comparable& comparable);
  void fill(Passed& passed, std::vector<std::int64_t> values);
  /// The `W` of a stage whose input needs no gradient is a whole backward. Recomputed layers are passed one by
  /// one, of which that holds for the first alone, as it was measured.
  [[nodiscard]] bool is_whole_in_weights(const StageRun& run, std::size_t first) const {
    return run.split_backward && !run.recomputed && first <= without_gradient_ && !input_needs_gradient_;
  }

  /// What stays of the output of a stage that ends with `last` when it has been sent.
  [[nodiscard]] std::int64_t kept_output(const StageRun& run, std::size_t last) const {
    return run.sent && last + 1 < layers() ? at_end_[last].kept_output : 0;
  }
  /// Of a layer's activation, its input left out.
  [[nodiscard]] std::int64_t made_again(std::size_t layer) const {
    return sums_[layer + 1].activation - sums_[layer].activation - (sums_[layer + 1].input - sums_[layer].input);
  }
  [[nodiscard]] std::int64_t forward_workspace(const StageRun& run, std::size_t first, std::size_t end) const;
  [[nodiscard]] Workspace backward_workspace(const StageRun& run, std::size_t first, std::size_t end) const;
  [[nodiscard]] Workspace recomputed_workspace(std::size_t first, std::size_t end) const;
  [[nodiscard]] std::int64_t input_workspace(const StageRun& run, std::size_t first, std::size_t end) const;
  [[nodiscard]] std::int64_t recomputed_input_workspace(std::size_t first, std::size_t end) const;
  /// Of the layers but the last, with `offset`, and of the last one, which takes `last`.
  [[nodiscard]] Workspace largest(const Passed& passed, std::size_t first, std::size_t end, std::int64_t offset,
                                  std::int64_t last) const;
  void fill_activation(const StageRun& run, std::size_t first, std::size_t end, StageCost& stage) const;
  void fill_workspaces(const StageRun& run, std::size_t first, std::size_t end, StageCost& stage) const;

  std::vector<Sums> sums_;  ///< one more than layers
  std::vector<std::int64_t> boundary_;
  bool input_needs_gradient_ = true;
  std::size_t without_gradient_ = 0;  ///< the first so many layers
  std::vector<AtEnd> at_end_;
  Largest forward_;
  Largest recomputed_forward_;
  Passed backward_;
  Passed recomputed_;
  Largest input_backward_;
  Largest recomputed_input_;
  Passed weight_;
  double overhead_ = 0;
};

/// The cost of each stage of a cut, at the speed of its rank.
/// \param layers are those of `costs` at the size of a microbatch. \param first_layers of each stage, ascending from 0.
/// \throws Error (BadInput) for what is not a cut of these layers.
[[nodiscard]] std::vector<StageCost> stages_of_cut(const LayerCosts& costs, const LayersAtSize& layers,
                                                   const std::vector<std::int64_t>& first_layers, const CutRun& run);

}  // namespace penstock
