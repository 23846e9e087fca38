#include "pipeline/gradient_tree.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/nn/parameters.h"

namespace penstock {

void OrderedSum::add(Tensors part) {
  summed_.push_back({0, std::move(part)});
  while (summed_.size() > 1 && (order_ == Order::Row || summed_.back().height == summed_[summed_.size() - 2].height))
    join_last_two();
}

void OrderedSum::join_last_two() {
  const at::NoGradGuard no_graph;
  Tensors right = std::move(summed_.back().sum);
  summed_.pop_back();
  Summed& left = summed_.back();
  left.sum.resize(std::max(left.sum.size(), right.size()));
  for (std::size_t index = 0; index < right.size(); ++index) {
    at::Tensor other = std::exchange(right[index], {});
    if (!other.defined()) continue;
    if (left.sum[index].defined())
      left.sum[index].add_(other);
    else
      left.sum[index] = std::move(other);
  }
  ++left.height;
}

Tensors OrderedSum::take() {
  while (summed_.size() > 1) join_last_two();
  Tensors sum = summed_.empty() ? Tensors() : std::move(summed_.front().sum);
  summed_.clear();
  return sum;
}

GradientTree::GradientTree(const std::vector<Stage>& stages, const GradientRuns& runs, int microbatches) : runs_(runs) {
  for (const Stage& stage : stages) {
    StageSums& sums = stages_.emplace_back();
    for (const Layer& layer : stage.layers()) {
      for (ModuleParameter& parameter : parameters_of(layer))
        if (parameter.tensor.requires_grad()) sums.parameters.push_back(std::move(parameter.tensor));
      for (auto& norm : batch_norms_of(layer)) sums.norms.push_back(std::move(norm));
    }
    if (!sums.norms.empty()) sums.gathered.resize(static_cast<std::size_t>(microbatches));
  }
}

void GradientTree::begin() {
  for (StageSums& stage : stages_) {
    stage.added = 0;
    static_cast<void>(stage.gradients.take());
    for (Tensors& gathered : stage.gathered) gathered.clear();
  }
}

void GradientTree::join(GradientReduction& reduction) {
  const bool has_norms = std::ranges::any_of(stages_, [](const StageSums& stage) { return !stage.norms.empty(); });
  if (!has_norms && runs_.count == 1) return;
  reduction.on_forward = [this](std::size_t local_stage, MicrobatchId microbatch) {
    take_gathered(stages_[local_stage], microbatch.index());
  };
  reduction.on_gradient = [this](std::size_t local_stage) { count_gradient(stages_[local_stage]); };
  reduction.on_final = [this, next = std::move(reduction.on_final)](std::size_t local_stage) {
    finish(stages_[local_stage]);
    if (next) next(local_stage);
  };
}

void GradientTree::take_gathered(StageSums& stage, std::size_t microbatch) {
  for (const auto& norm : stage.norms) stage.gathered[microbatch].push_back(std::exchange(norm->gathered(), {}));
}

void GradientTree::count_gradient(StageSums& stage) {
  ++stage.added;
  if (runs_.count == 1 || stage.added % runs_.length != 0) return;
  Tensors run;
  run.reserve(stage.parameters.size());
  for (const at::Tensor& parameter : stage.parameters) run.push_back(std::exchange(parameter.mutable_grad(), {}));
  stage.gradients.add(std::move(run));
}

void GradientTree::finish() {
  for (StageSums& stage : stages_) finish(stage);
}

void GradientTree::finish(StageSums& stage) {
  Tensors sums = stage.gradients.take();
  for (std::size_t index = 0; index < sums.size(); ++index)
    stage.parameters[index].mutable_grad() = std::move(sums[index]);
  OrderedSum over_runs(OrderedSum::Order::Tree);
  OrderedSum within_run(OrderedSum::Order::Row);
  std::int64_t in_run = 0;
  for (Tensors& gathered : stage.gathered) {
    if (gathered.empty()) continue;  // another replica's
    within_run.add(std::exchange(gathered, {}));
    if (++in_run % runs_.length == 0) over_runs.add(within_run.take());
  }
  if (in_run == 0) return;
  if (in_run % runs_.length != 0) over_runs.add(within_run.take());
  Tensors gathered = over_runs.take();
  for (std::size_t index = 0; index < gathered.size(); ++index)
    stage.norms[index]->gathered() = std::move(gathered[index]);
}

}  // namespace penstock
