/// \file
/// A network at work on several devices: cut into stages, one thread a rank, trained a minibatch at a time. The numbers
/// are those of one device, to the bit, whatever the cut and the schedule.
///
///     const auto schedule = penstock::verify(penstock::make_schedule("1f1b", /*ranks=*/4, /*microbatches=*/8));
///     penstock::Pipeline pipeline(network, schedule, {.seed = 1});
///     for (std::int64_t step = 0; step < 100; ++step) pipeline.step(inputs, targets, step, /*learning_rate=*/1e-3);
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/checkpoint/safetensors.h"
#include "penstock/exec/microbatch.h"
#include "penstock/nn/layer.h"
#include "penstock/optim/optimizer.h"
#include "penstock/plan/plan.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

class CheckpointPart;
class CheckpointReader;
class ProcessGroup;
class Transport;

/// How a network is laid out and trained.
struct PipelineSettings {
  Cut cut;  ///< as many stages as the schedule has; empty: uniform
  /// Of the ranks, by rank; fewer are used in turn. Several ranks may share one. Empty: all on the CPU.
  /// The same bits from run to run need `choose_repeatable_algorithms` on others than the host.
  std::vector<at::Device> devices;
  /// Intra-op threads of each rank; 0: the cores divided by the ranks, at least 1. Part of the numbers: libtorch's
  /// reductions round differently on another number of threads. With 1, any number of stages has the same bits.
  int threads_per_rank = 1;
  std::uint64_t seed = 0;  ///< of initial weights and random layers
  OptimizerSettings optimizer;
  /// Another library's optimizer in place of `optimizer`, made on each rank for what that updates. Its updates cannot
  /// be taken back, so that ranks wait for the norm where there is clipping. Empty: penstock's.
  MakeOptimizer outside_optimizer = {};
  double clip_norm = 0;  ///< of the gradient over all stages; 0: no clipping. Typical: 1
  /// By layer: whether its forward pass is run again for the backward. Layers behind the end of the list are not.
  std::vector<bool> recompute;
  bool offload = false;  ///< keep the inputs of recomputed layers in the host's memory, if the device is another
  /// In which the layers compute; weights and updates stay in float32 unless `weights` says otherwise. With Float16 the
  /// loss is scaled (`LossScale`) and an update whose gradient is not finite anywhere is skipped everywhere.
  Precision precision = Precision::Float32;
  /// In which the weights are kept. With BFloat16 they and their gradients take half the memory, and the optimizer
  /// keeps a float32 copy of each (`OptimizerSettings::masters`), which is what it updates; `precision` has to be
  /// BFloat16 too.
  Precision weights = Precision::Float32;
  BoundaryDtype boundary_dtype = BoundaryDtype::Same;  ///< of what goes from rank to rank
  /// For updates that may have to be clipped or skipped: whether ranks update as soon as their own gradients are there,
  /// begin the next step, and take both back, to the bit, where the norm says that the update had to be clipped or
  /// skipped (arXiv 2401.10241, section 4). Keeps a copy of weights, gradients, buffers and optimizer state from the
  /// update to the check. After an update that was taken back ranks wait for the norm, until an update would have
  /// stayed. Without clipping and a scaled loss nothing is ever taken back: ranks then go on whatever is set here, and
  /// keep nothing. The numbers are the same to the bit. Nothing: measurements decide, in the first steps and from time
  /// to time; ranks wait if only one step is in flight, on devices other than the host, and if the copies would not fit
  /// into `memory_limit`.
  std::optional<bool> post_validation = {};
  /// How many steps may be on their way: whether a rank that has done its part of one begins the next while others are
  /// still at it. The numbers are the same to the bit. 1: none is begun before all ranks have ended the last.
  /// Typical: 2.
  int steps_in_flight = 2;
  /// How many pipelines stand side by side in the schedule (`side_by_side`). Their gradients are added up, and
  /// evaluation shares microbatches out among them.
  int replicas = 1;
  /// The number of equal runs of microbatches whose gradients are added along a fixed tree: a power of two that divides
  /// the microbatches and that the replicas divide. The numbers of 1, 2, 4 … replicas are then the same to the bit. A
  /// stage keeps at most log2(gradient_tree / replicas) gradients beside the one that it adds to. 0: there is no tree;
  /// each replica adds its microbatches in a row, and the sums depend on the number of replicas in their last bits.
  /// Typical: 8
  int gradient_tree = 0;
  /// Whether the holders of a stage, in replicas or in a bidirectional schedule, share its optimizer state: each keeps
  /// that of its share of the parameters, updates these and sends them to the others (ZeRO-1, arXiv 1910.02054). The
  /// numbers are the same to the bit. A parameter is never divided.
  bool shard_optimizer = false;
  Bytes gradient_bucket{4 << 20};  ///< the largest message of gradients between the holders of a stage
  bool check_finite = false;  ///< search every layer's outputs for infinities and NaN: slow, says where the first is
  Bytes memory_limit;         ///< of each rank, in CPU tensors; an allocation beyond it throws. 0: none
  /// What the ranks' messages go through, if all ranks are threads of this process: a function that is given their ends
  /// and returns others in their place, as `with_emulated_links` does. Empty: the ends as they are.
  std::function<std::vector<std::unique_ptr<Transport>>(std::vector<std::unique_ptr<Transport>>)> links = {};
};

/// How many intra-op threads each of so many ranks on this machine has by default: the cores divided by the ranks, at
/// least 1.
[[nodiscard]] int default_threads(int ranks);

/// What belongs to one update.
struct UpdateSettings {
  std::int64_t step = 0;  ///< numbers the random layers' draws
  double learning_rate = 1e-3;
  bool keep_outputs = false;  ///< return the outputs of the last stage
  int stop_signal = 0;        ///< 1 to 31: asks all processes to end after this step; 0: goes on
  bool saving = false;        ///< this process still writes a checkpoint: see `StepResult::saving`
};

/// What the loss said of one microbatch.
struct MicrobatchLoss {
  double sum = 0;
  double weight = 0;

  friend bool operator==(const MicrobatchLoss&, const MicrobatchLoss&) = default;
};

/// What one training step was like.
struct StepResult {
  double loss = 0;             ///< mean over the minibatch's weight, before the update
  double weight = 0;           ///< of the minibatch: samples or unmasked tokens
  double gradient_norm = 0;    ///< over all stages, of the divided gradient, before clipping
  bool updated_first = false;  ///< the update could have been taken back, and did not wait for its norm
  bool taken_back = false;     ///< the update was made before the check of its norm, and then made again or skipped
  bool skipped = false;        ///< Float16: the gradient was not finite, and nothing was updated
  double loss_scale = 1;       ///< that the step's gradients were scaled by
  int stop_signal = 0;         ///< with which some process asked to end after this step, 0: none; the same on all
  bool saving = false;         ///< some process was still writing when this step ended; the same on all
  std::vector<MicrobatchLoss> losses;  ///< by microbatch
  /// By rank of this process: the most that it has held since the last `begin_accounting`, as in `StageReport`.
  std::vector<Bytes> peak_memory;
  /// By microbatch, where they were asked for; `merge_outputs` joins them. Only where the last stage's rank lives.
  std::vector<Tensors> outputs;
  Milliseconds begun;  ///< when the first rank of this process began the step, on the machine's `SteadyClock`
  /// Measured; zero is the start of the step. If there are several processes, the first knows all ranks, the others
  /// only their own. Its memory has a sample at the end of each event, of what the rank holds for the microbatches
  /// under way: no weights, gradients of weights or messages. None for ranks of one process that share a device other
  /// than the host.
  Timeline timeline;
};

/// What a stage is and has done since the last `begin_accounting`.
struct StageReport {
  int stage = 0;
  int rank = 0;
  std::int64_t first_layer = 0;
  std::int64_t layers = 0;
  std::int64_t parameters = 0;
  double busy_share = 0;  ///< of its rank's time between the first and the last action of each step
  Bytes peak_memory;      ///< of its rank: weights, gradients, optimizer and activations together, in CPU tensors; on
                          ///< another device, of all ranks that share it
  Bytes sent;             ///< by the stage to other ranks
};

/// What a checkpoint holds of one stage: weights, buffers and optimizer state.
struct SavedStage {
  StageId stage;
  std::vector<NamedTensor> tensors;
  int shard = 0;  ///< where the optimizer's state is sharded: 0 with weights and buffers, others with state alone
};

class Steps;
struct StepInFlight;

/// A step that was submitted, until its result is taken. Belongs to the thread that calls the pipeline, which must
/// outlive it. May be dropped: the step is done all the same.
class StepHandle {
 public:
  StepHandle(const StepHandle&) = delete;
  StepHandle& operator=(const StepHandle&) = delete;
  StepHandle(StepHandle&&) noexcept;
  StepHandle& operator=(StepHandle&&) noexcept;
  ~StepHandle();

  /// Waits until the ranks of this process have ended the step and know that its update stays. Call it once for each
  /// step, in any order. \throws Error as `Pipeline::step`, also of a later step that failed before this one was
  /// checked; (BadInput) if it has been waited for.
  StepResult wait();

 private:
  friend class Pipeline;
  StepHandle(std::shared_ptr<StepInFlight> step, Steps& steps);

  std::shared_ptr<StepInFlight> step_;
  Steps* steps_;
};

/// A pipeline in one process, or this process's part of one in several, which then all make the same calls in the same
/// order. Calls come from one thread at a time; each returns when this process's ranks have done it. After an Error
/// from a step the pipeline is stopped for good: make a new one and load a checkpoint.
class Pipeline {
 public:
  /// Builds each layer on its rank. \param schedule a compute schedule; sends and receives are added here.
  /// \param group the processes that share the pipeline, each with its own ranks; null: all ranks are threads of this
  /// one. Must outlive the pipeline, and serves one pipeline only.
  /// \throws Error (BadInput) where schedule, cut and network do not fit each other.
  Pipeline(Network network, const VerifiedSchedule& schedule, PipelineSettings settings, ProcessGroup* group = nullptr);
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;
  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;
  ~Pipeline();

  /// Gives the ranks a step and returns at once, or as soon as fewer than `steps_in_flight` are on their way. A rank
  /// begins it when it has done its part of the one before. Inputs and targets must not be changed before the step has
  /// been waited for. Evaluation, checkpoints and all other calls come behind every step that was submitted before
  /// them. Arguments and errors are those of `step`.
  [[nodiscard]] StepHandle submit(const std::vector<Microbatch>& microbatches, const UpdateSettings& settings);

  /// The same for one input and one target, which are cut as `step` does.
  [[nodiscard]] StepHandle submit(const at::Tensor& input, const at::Tensor& target, std::int64_t step,
                                  double learning_rate);

  /// `submit` and wait: one minibatch, one update. The minibatch comes in as many parts as the schedule has
  /// microbatches; they may differ in shape from each other and from step to step. \throws Error (BadInput) for another
  /// number of parts; (RunFailed) that names rank, stage, microbatch, action and layer where a layer throws, or a loss
  /// that is not finite.
  StepResult step(const std::vector<Microbatch>& microbatches, const UpdateSettings& settings);

  /// The same for a minibatch of one input and one target that have the samples in their first dimension; they are cut
  /// into parts of sizes that differ by at most one. \throws Error (BadInput) as `split_minibatch`.
  StepResult step(const at::Tensor& input, const at::Tensor& target, std::int64_t step, double learning_rate);

  /// The losses of several minibatches without an update, in evaluation mode, all of them in flight together. No graph
  /// is kept. Each may come in any number of parts.
  [[nodiscard]] std::vector<Loss> evaluate(const std::vector<std::vector<Microbatch>>& minibatches);

  /// The loss of one minibatch, as `cut` cuts it.
  [[nodiscard]] Loss evaluate(const at::Tensor& input, const at::Tensor& target);

  /// A minibatch of one input and one target, cut into as many microbatches as in training, or as it has samples.
  [[nodiscard]] std::vector<Microbatch> cut(const at::Tensor& input, const at::Tensor& target) const;

  /// The outputs of the last stage for any number of microbatches, in evaluation mode, by microbatch. \param sequences
  /// whether layers remember what they saw of each microbatch, so that the next call, with as many, only brings what is
  /// new (`KeyValueCache`); any other call forgets it. \param begun_anew by microbatch, where sequences go on: whether
  /// what was remembered of it is forgotten before this call; empty: none is. \throws Error (BadInput) where there is
  /// nothing to go on with.
  [[nodiscard]] std::vector<Tensors> forward(const std::vector<Microbatch>& microbatches,
                                             Sequences sequences = Sequences::Whole,
                                             const std::vector<bool>& begun_anew = {});

  /// The outputs for one input that has the samples in its first dimension, joined along it.
  [[nodiscard]] Tensors forward(const at::Tensor& input);

  /// Writes weights and optimizer state of this process's stages, a file a stage, each from its rank. If a stage has
  /// several holders, the first writes all of it, or, where the optimizer's state is sharded, each writes its shard.
  /// Does not commit.
  void save(CheckpointPart& part);

  /// Copies what `save` would write into `copies`, in the host's memory, each stage from its rank; what they hold of an
  /// earlier call is written over, so that nothing is allocated. The copies count as no rank's memory. They can be
  /// written (`CheckpointPart::write_stage`) on any thread while the pipeline goes on.
  void copy_state(std::vector<SavedStage>& copies);

  /// Every process gives a text and gets those of all, by process.
  [[nodiscard]] std::vector<std::string> exchange(const std::string& text);

  /// Takes weights and, where `with_optimizer`, optimizer state from a checkpoint, written on any number of stages.
  /// \throws Error (BadInput) that names a tensor which is missing or of another shape: the checkpoint of another
  /// network.
  void load(const CheckpointReader& reader, std::int64_t updates, bool with_optimizer = true);

  /// A copy of every weight of this process's stages, "layers.0.token.weight" and so on, in the order of the layers.
  [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> weights();

  /// Begins the figures of `report`, `links` and `peak_memory` anew.
  void begin_accounting();
  /// By stage and then by rank: one for each holder. If there are several processes, the first knows all, the others
  /// only their own.
  [[nodiscard]] std::vector<StageReport> report();
  /// What went over the links between ranks since the last `begin_accounting`, by sender and receiver. If there are
  /// several processes, the first knows all, the others none.
  [[nodiscard]] std::vector<LinkUse> links() const;

  /// By rank of this process: the most that it has held since the last `begin_accounting`, as in `StageReport`.
  [[nodiscard]] std::vector<Bytes> peak_memory();

  [[nodiscard]] int ranks() const;
  [[nodiscard]] int threads_per_rank() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock
