// One rank of a pipeline: its stages, its optimizer, its ends of the transport. Lives on the rank's thread.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/clock.h"
#include "penstock/exec/rank.h"
#include "penstock/nn/batch_norm.h"
#include "penstock/nn/ties.h"
#include "penstock/optim/loss_scale.h"
#include "penstock/pipeline/pipeline.h"

#include "pipeline/copies.h"
#include "pipeline/pipeline_plan.h"
#include "pipeline/shared_parameters.h"

namespace penstock {

// What one rank knows after an update; `result`, without timeline and outputs, is equal on all ranks.
struct WorkerStep {
  StepResult result;
  std::vector<Event> events;
  std::vector<Receipt> receipts;   // by event
  std::vector<Bytes> activations;  // after each event
  std::vector<Tensors> outputs;    // of the microbatches whose last stage is here
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

  // Schedule, sums over copies and ties, norm, update.
  WorkerStep train(StepInput input, const UpdateSettings& settings);
  [[nodiscard]] StepOutput evaluate(const Program& program, const StepInput& input) {
    return executor_.run(program, input);
  }
  [[nodiscard]] Transport& transport() { return transport_; }

  // Whether this rank is the only holder of a stage, or the first of several: it saves the stage and counts it.
  [[nodiscard]] bool is_first_holder_of(StageId stage) const { return place_among_holders(stage) == 0; }
  // Of a stage that it holds.
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
  // Norms and losses of all ranks, which they exchange before an update.
  struct Totals {
    std::vector<MicrobatchLoss> losses;
    double loss_sum = 0;
    double weight = 0;
    double scaled_norm = 0;  // of the summed gradient: neither divided by the weight nor by the loss scale
  };

  static std::vector<Stage> build_stages(const PipelinePlan& plan, const Program& program, RankId rank,
                                         std::set<std::int64_t>& held_elsewhere);
  std::vector<Parameter> find_parameters() const;
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
  StepResult update(const StepOutput& output, const UpdateSettings& settings);
  [[nodiscard]] std::vector<double> own_totals(const StepOutput& output) const;
  [[nodiscard]] Totals sum_totals(const std::vector<std::vector<double>>& by_rank) const;
  [[nodiscard]] double share_weight(const StepOutput& output);
  [[nodiscard]] StepResult judge(const Totals& totals, std::int64_t step) const;
  [[nodiscard]] double factor_of(const StepResult& result) const;
  void settle_gradients();
  void apply(double factor, double learning_rate);
  [[nodiscard]] std::vector<at::Tensor> gradients() const;
  void finish_update(const StepResult& result);
  [[nodiscard]] const std::vector<RankId>& holders_of_layer(std::int64_t layer) const;
  [[nodiscard]] at::Tensor* find(const ParameterAddress& address);
  void account(const StepOutput& output);

  const PipelinePlan& plan_;
  Transport& transport_;
  Program training_;
  MemoryMeter memory_;                     // before all that allocates
  std::set<std::int64_t> held_elsewhere_;  // layers whose modules were, when they were built
  RankExecutor executor_;
  Copies copies_;
  std::vector<Parameter> parameters_;  // in the order of the layers
  std::vector<std::shared_ptr<DeferredBatchNorm>> batch_norms_;
  Optimizer optimizer_;
  LossScale loss_scale_;
  at::Tensor loss_scale_state_;  // as it is kept in checkpoints; undefined where nothing is scaled

  std::vector<double> busy_ms_;  // by local stage
  std::vector<Bytes> sent_;      // by local stage
  double active_ms_ = 0;         // from the first to the last action of each step
};

// Of what is the optimizer's in checkpoints.
inline constexpr const char* optimizer_prefix = "optimizer.";
// Whether a checkpoint's tensor counts the updates of a parameter: checkpoints of old have one count for all.
[[nodiscard]] bool is_update_count(const std::string& name);

// The name of the loss scale's state in checkpoints.
inline constexpr const char* loss_scale_name = "optimizer.loss_scale";

}  // namespace penstock
