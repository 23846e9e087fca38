/// \file
/// A network at work on several devices: cut into stages, one thread a rank, trained a minibatch at a time. The numbers
/// are those of one device, to the bit, whatever the cut and the schedule.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/units.h"
#include "penstock/nn/layer.h"
#include "penstock/plan/cut.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"
#include "penstock/train/optimizer.h"

namespace penstock {

class CheckpointWriter;
class CheckpointReader;

/// How a network is laid out and trained.
struct PipelineSettings {
  Cut cut;  ///< as many stages as the schedule has; empty: uniform
  /// Of the ranks, by rank; fewer are used in turn. Several ranks may share one. Empty: all on the CPU.
  std::vector<at::Device> devices;
  /// Intra-op threads of each rank; 0: the cores divided by the ranks, at least 1. Part of the numbers: libtorch's
  /// reductions round differently on another number of threads.
  int threads_per_rank = 0;
  std::uint64_t seed = 0;  ///< of initial weights and random layers
  OptimizerSettings optimizer;
  double clip_norm = 0;  ///< of the gradient over all stages; 0: no clipping. Typical: 1
};

/// What one training step was like.
struct StepResult {
  double loss = 0;           ///< mean over the minibatch's weight, before the update
  double weight = 0;         ///< of the minibatch: samples or unmasked tokens
  double gradient_norm = 0;  ///< over all stages, of the divided gradient, before clipping
  Timeline timeline;         ///< measured; zero is the start of the step
};

/// What a stage is and has done since the last `begin_accounting`.
struct StageReport {
  int stage = 0;
  int rank = 0;
  std::int64_t first_layer = 0;
  std::int64_t layers = 0;
  std::int64_t parameters = 0;
  double busy_share = 0;  ///< of its rank's time between the first and the last action of each step
  Bytes peak_memory;      ///< of its rank: weights, gradients, optimizer and activations together, in CPU tensors
  Bytes sent;             ///< by the stage to other ranks
};

/// A pipeline in one process. Calls come from one thread at a time; each returns when all ranks have done it. After an
/// Error from a step the pipeline is stopped for good: make a new one and load a checkpoint.
class Pipeline {
 public:
  /// Builds each layer on its rank. \param schedule a compute schedule; sends and receives are added here.
  /// \throws Error (BadInput) where schedule, cut and network do not fit each other.
  Pipeline(Network network, const VerifiedSchedule& schedule, PipelineSettings settings);
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;
  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;
  ~Pipeline();

  /// One minibatch, one update. `input` and `target` have the samples in their first dimension; they are split into the
  /// schedule's M microbatches, of sizes that differ by at most one. \param step numbers the random layers' draws.
  /// \throws Error (BadInput) for fewer samples than microbatches, or where input and target differ in number;
  /// (RunFailed) that names rank, stage, microbatch and action where a layer throws, or a loss that is not finite.
  StepResult step(const at::Tensor& input, const at::Tensor& target, std::int64_t step, double learning_rate);

  /// The loss without an update, in evaluation mode: sum and weight. Any number of samples from 1.
  [[nodiscard]] Loss evaluate(const at::Tensor& input, const at::Tensor& target);

  /// The outputs of the last stage, in evaluation mode, joined along the first dimension.
  [[nodiscard]] Tensors forward(const at::Tensor& input);

  /// Writes weights and optimizer state, a file a stage, each from its rank. Does not commit.
  void save(CheckpointWriter& writer);

  /// Takes weights and, where `with_optimizer`, optimizer state from a checkpoint, written on any number of stages.
  /// \throws Error (BadInput) that names a tensor which is missing or of another shape: the checkpoint of another
  /// network.
  void load(const CheckpointReader& reader, std::int64_t updates, bool with_optimizer = true);

  /// A copy of every weight, "layers.0.token.weight" and so on, in the order of the layers.
  [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> weights();

  void begin_accounting();
  [[nodiscard]] std::vector<StageReport> report();

  [[nodiscard]] int ranks() const;
  [[nodiscard]] int threads_per_rank() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock
