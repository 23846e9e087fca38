// One rank of a pipeline: its stages, its optimizer, its ends of the transport. Lives on the rank's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/exec/rank.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/ties.h"
#include "penstock/optim/loss_scale.h"
#include "penstock/pipeline/pipeline.h"

#include "pipeline/copies.h"
#include "pipeline/pipeline_plan.h"
#include "pipeline/shared_parameters.h"
#include "pipeline/totals.h"
#include "pipeline/update_choice.h"

namespace penstock {

// What one rank knows after an update.
struct WorkerStep {
  // Without timeline and outputs, equal on all ranks; nothing while the update is unchecked.
  std::optional<StepResult> result;
  std::vector<Event> events;
  std::vector<Receipt> receipts;   // by event
  std::vector<Bytes> activations;  // after each event
  std::vector<Tensors> outputs;    // of the microbatches whose last stage is here
  Bytes peak_memory;               // since the last `begin_accounting`
};

class Worker {
 public:
  using NamedTensorView = std::pair<std::string, at::Tensor>;

  // Builds the rank's layers. On the rank's thread; `plan`, `transport` and `clock` must outlive it.
  Worker(const PipelinePlan& plan, Transport& transport, const Clock& clock);
  // With all other ranks, when all have built theirs: what is tied starts equal. Throws Error (BadInput) for ties and
  // rules of the optimizer that do not fit the network.
  void meet();

  [[nodiscard]] std::vector<PlacedLayer> layers() const;

  // An update that was made before its check, and whether it stays: otherwise it has been taken back and made again.
  struct CheckedUpdate {
    StepResult result;
    bool stays = true;
  };

  // Schedule, sums over copies and ties, norm, update. May end before the update has been checked; the check is then
  // that of the next `train`, behind its lead, which gives the result to `on_checked`, or of `check_update`.
  WorkerStep train(StepInput input, const UpdateSettings& settings,
                   const std::function<void(const StepResult&)>& on_checked);
  // Checks the last update, if it is unchecked. All ranks do, before anything but `train`. Throws Error (RunFailed) for
  // numbers that are not finite.
  std::optional<CheckedUpdate> check_update();

  [[nodiscard]] StepOutput evaluate(const Program& program, const StepInput& input) {
    executor_.align_clock();
    return executor_.run(program, input);
  }
  [[nodiscard]] Transport& transport() { return transport_; }

  // Whether this rank is the only holder of a stage, or the first of several: it saves the stage and counts it.
  [[nodiscard]] bool is_first_holder_of(StageId stage) const { return place_among_holders(stage) == 0; }
  // \param stage one that it holds.
  [[nodiscard]] int place_among_holders(StageId stage) const;

  // By stage: weights and buffers, then optimizer state, as checkpoints name them; shared tensors.
  [[nodiscard]] std::vector<std::pair<StageId, std::vector<NamedTensorView>>> state() const;
  [[nodiscard]] std::vector<std::pair<StageId, std::vector<NamedTensorView>>> weights() const;
  // The name in a checkpoint of what a tensor of `state` starts as: of what is tied, its owner's.
  [[nodiscard]] std::string name_to_load(const std::string& name) const;
  // What all ranks know alike of the loss scale, to be kept in checkpoints: undefined where nothing is scaled.
  [[nodiscard]] const at::Tensor& loss_scale_state() const { return loss_scale_state_; }
  // Goes on from a checkpoint, after `state` has been filled. A `loss_scale_state` that is undefined is not taken;
  // `counts` are those of `state` (`is_update_count`) that were in the checkpoint.
  void resume(std::int64_t updates, const at::Tensor& loss_scale_state, const std::vector<NamedTensorView>& counts);

  // Whether another library's optimizer updates the weights: then `state` is not filled, and this takes its part.
  [[nodiscard]] bool updates_outside() const { return optimizer_.is_outside(); }
  void resume_outside(std::int64_t updates, const CheckpointReader& reader);

  void begin_accounting();
  [[nodiscard]] Bytes peak_memory() const;
  [[nodiscard]] std::vector<StageReport> report();

 private:
  struct Parameter {
    std::int64_t layer = 0;
    std::int64_t place = 0;          // within the layer
    std::vector<std::string> names;  // within the layer; the first is that of checkpoints
    at::Tensor tensor;
    bool counted_elsewhere = false;  // in the norm: by a tie's owner, or by another of the stage's holders
  };
  // An update of which nobody knows yet whether it stays.
  struct UncheckedUpdate {
    std::int64_t step = 0;
    double learning_rate = 0;
    std::vector<double> own_totals;
    LossScale loss_scale;  // that the step was made with
    double factor = 0;     // that its gradients were multiplied with
    // As they were before the update, where it may be taken back.
    std::vector<at::Tensor> sums;                            // of the gradients, by parameter
    std::vector<std::pair<at::Tensor, at::Tensor>> buffers;  // of the layers, and copies of them
    std::vector<at::Tensor> gathered;                        // by batch norm
  };

  static std::vector<Stage> build_stages(const PipelinePlan& plan, const Program& program, RankId rank,
                                         std::set<std::int64_t>& held_elsewhere);
  // Those that learn, or those that take no gradient.
  std::vector<Parameter> find_parameters(bool learning) const;
  // Those of ties.cpp: parameters that are one are kept equal.
  void share_initial_ties();
  void add_tied_gradients();
  void apply_tied_sum(const TieGroup& group, const at::Tensor& sum);
  void send_tied(RankId to, const Tag& tag, at::Tensor tensor);
  [[nodiscard]] at::Tensor receive_tied(RankId from, const Tag& tag);
  [[nodiscard]] std::vector<at::Tensor*> held_members(const TieGroup& group);
  [[nodiscard]] std::vector<Optimizer::Parameter> updated_parameters() const;
  void check_rules();
  // Those of update.cpp: from gradients to weights.
  std::optional<StepResult> update(const StepOutput& output, const UpdateSettings& settings);
  [[nodiscard]] bool updates_first() const;
  [[nodiscard]] bool may_take_back() const;
  [[nodiscard]] std::optional<bool> asked_to_update_first() const;
  [[nodiscard]] double own_pace();
  [[nodiscard]] Bytes memory_of_check() const;
  [[nodiscard]] std::vector<double> own_totals(const StepOutput& output);
  void send_loss_weights(const std::vector<double>& weights);
  [[nodiscard]] double minibatch_weight(const StepOutput& output);
  [[nodiscard]] StepResult judge(const Totals& totals, std::int64_t step, const LossScale& scale) const;
  [[nodiscard]] double factor_of(const StepResult& result) const;
  void settle_gradients();
  void apply(double factor, double learning_rate, bool keep_sums);
  [[nodiscard]] std::vector<at::Tensor> gradients() const;
  [[nodiscard]] std::vector<std::pair<at::Tensor, at::Tensor>> copied_buffers() const;
  void take_back(const UncheckedUpdate& update, const StepResult& result);
  void finish_update(bool skipped);
  [[nodiscard]] const std::vector<RankId>& holders_of_layer(std::int64_t layer) const;
  [[nodiscard]] at::Tensor* find(const ParameterAddress& address);
  void account(const StepOutput& output);

  const PipelinePlan& plan_;
  Transport& transport_;
  const Clock& clock_;
  Program training_;
  MemoryMeter memory_;                     // before all that allocates
  std::set<std::int64_t> held_elsewhere_;  // layers whose modules were, when they were built
  RankExecutor executor_;
  Copies copies_;
  GradientTree gradient_tree_;
  std::vector<Parameter> parameters_;  // in the order of the layers
  std::vector<Parameter> frozen_;      // the same: what is tied starts equal, also where it stays so
  std::vector<std::shared_ptr<DeferredBatchNorm>> batch_norms_;
  Optimizer optimizer_;
  LossScale loss_scale_;
  std::optional<UncheckedUpdate> unchecked_;
  UpdateChoice update_choice_;
  std::optional<Bytes> memory_of_check_;  // when it has been asked for
  double passes_ended_ms_ = 0;            // of the last step
  bool last_check_held_ = true;           // nothing was clipped or skipped
  at::Tensor loss_scale_state_;           // as it is kept in checkpoints; undefined where nothing is scaled

  std::vector<double> busy_ms_;  // by local stage
  std::vector<Bytes> sent_;      // by local stage
  double active_ms_ = 0;         // from the first to the last action of each step
};

// How the names of the optimizer's tensors begin in checkpoints.
inline constexpr const char* optimizer_prefix = "optimizer.";
// Whether a checkpoint's tensor counts the updates of a parameter: checkpoints of old have one count for all.
[[nodiscard]] bool is_update_count(const std::string& name);

// The name of the loss scale's state in checkpoints.
inline constexpr const char* loss_scale_name = "optimizer.loss_scale";

}  // namespace penstock
