#include "train/worker.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

std::vector<Optimizer::Named> checkpoint_names(const auto& parameters) {
  std::vector<Optimizer::Named> named;
  named.reserve(parameters.size());
  for (const auto& parameter : parameters)
    named.emplace_back(tensor_name(parameter.layer, parameter.name), parameter.tensor);
  return named;
}

}  // namespace

std::string tensor_name(std::int64_t layer, const std::string& name) {
  return fmt::format("layers.{}.{}", layer, name);
}

std::int64_t end_of_stage(const PipelinePlan& plan, StageId stage) {
  const Cut& cut = plan.settings.cut;
  return stage.index() + 1 < cut.size() ? cut[stage.index() + 1]
                                        : static_cast<std::int64_t>(plan.network.layers.size());
}

Worker::Worker(const PipelinePlan& plan, Transport& transport, const Clock& clock)
    : plan_(plan),
      transport_(transport),
      training_(compile(plan.training, transport.rank())),
      executor_(build_stages(plan, training_, transport.rank()), transport, clock),
      parameters_(find_parameters()),
      optimizer_(plan.settings.optimizer, checkpoint_names(parameters_)) {
  share_initial_ties();
  begin_accounting();
}

std::vector<Stage> Worker::build_stages(const PipelinePlan& plan, const Program& program, RankId rank) {
  std::vector<Stage> stages;
  for (const StageId stage : program.stages) {
    const auto& devices = plan.settings.devices;
    const at::Device device = devices.empty() ? at::Device(at::kCPU) : devices[rank.index() % devices.size()];
    StageParts parts;
    parts.stage = stage;
    parts.first_layer = plan.settings.cut[stage.index()];
    parts.device = device;
    parts.seed = plan.settings.seed;
    for (std::int64_t layer = parts.first_layer; layer < end_of_stage(plan, stage); ++layer)
      parts.layers.push_back(build_layer(plan.network, layer, plan.settings.seed, device));
    if (stage.value + 1 == plan.training->stages) parts.loss = plan.network.loss;
    stages.emplace_back(std::move(parts));
  }
  return stages;
}

std::vector<Worker::Parameter> Worker::find_parameters() const {
  std::vector<Parameter> parameters;
  for (const Stage& stage : executor_.stages()) {
    for (std::size_t index = 0; index < stage.layers().size(); ++index) {
      const std::int64_t layer = stage.first_layer() + static_cast<std::int64_t>(index);
      for (const auto& parameter : stage.layers()[index].module().named_parameters()) {
        if (!parameter.value().requires_grad()) continue;
        const ParameterAddress address{layer, parameter.key()};
        const bool copy = std::any_of(plan_.network.ties.begin(), plan_.network.ties.end(),
                                      [&](const Tie& tie) { return tie.copy == address; });
        parameters.push_back({layer, parameter.key(), parameter.value(), copy || !speaks_for(stage.id())});
      }
    }
  }
  return parameters;
}

Worker::Totals Worker::gather_totals(const StepOutput& output) {
  // First this rank's losses and weights, then one entry for each parameter: its layer and the square of its norm.
  std::vector<double> values{static_cast<double>(output.loss_sums.size())};
  values.insert(values.end(), output.loss_sums.begin(), output.loss_sums.end());
  values.insert(values.end(), output.loss_weights.begin(), output.loss_weights.end());
  for (const Parameter& parameter : parameters_) {
    if (parameter.counted_elsewhere || !parameter.tensor.grad().defined()) continue;
    const auto norm = parameter.tensor.grad().norm(2, at::kDouble).item<double>();
    values.push_back(static_cast<double>(parameter.layer));
    values.push_back(norm * norm);
  }
  // Losses by microbatch, so that they add up in one order whichever rank computed them.
  std::vector<double> loss_sums(static_cast<std::size_t>(training_.microbatches), 0);
  std::vector<double> weights = loss_sums;
  std::vector<std::pair<double, double>> squares;  // layer and square, to be added in the order of the layers
  for (const std::vector<double>& of_rank : all_gather(transport_, values)) {
    const auto losses = static_cast<std::size_t>(of_rank.front());
    for (std::size_t microbatch = 0; microbatch < losses; ++microbatch) {
      loss_sums[microbatch] += of_rank[1 + microbatch];
      weights[microbatch] += of_rank[1 + losses + microbatch];
    }
    for (std::size_t next = 1 + 2 * losses; next < of_rank.size(); next += 2)
      squares.emplace_back(of_rank[next], of_rank[next + 1]);
  }
  std::stable_sort(squares.begin(), squares.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  double sum = 0;
  for (const auto& [layer, square] : squares) sum += square;
  Totals totals;
  totals.loss_sum = std::accumulate(loss_sums.begin(), loss_sums.end(), 0.0);
  totals.weight = std::accumulate(weights.begin(), weights.end(), 0.0);
  totals.gradient_norm = std::sqrt(sum) / totals.weight;
  return totals;
}

WorkerStep Worker::train(const StepInput& input, double learning_rate) {
  StepOutput output = executor_.run(training_, input);
  account(output);
  add_copied_gradients();
  add_tied_gradients();
  const Totals totals = gather_totals(output);
  WorkerStep result{totals.loss_sum / totals.weight, totals.weight, totals.gradient_norm, std::move(output.events)};
  if (!(totals.weight > 0))
    throw run_failed(fmt::format("the weight of step {}'s minibatch is {}", input.step, totals.weight), "more than 0",
                     "check that the loss returns the number of samples or unmasked tokens");
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm))
    throw run_failed(
        fmt::format("step {} has loss {} and gradient norm {}", input.step, result.loss, result.gradient_norm),
        "finite numbers", "lower the learning rate or clip the gradient");
  // The one division of the gradients, with clipping in the same factor.
  double factor = 1 / totals.weight;
  const double clip = plan_.settings.clip_norm;
  if (clip > 0 && totals.gradient_norm > clip) factor *= clip / (totals.gradient_norm + 1e-6);
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : parameters_)
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  if (!gradients.empty()) at::_foreach_mul_(gradients, factor);
  optimizer_.update(learning_rate);
  for (const Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
  return result;
}

std::vector<std::pair<StageId, std::vector<Worker::NamedTensorView>>> Worker::weights() const {
  std::vector<std::pair<StageId, std::vector<NamedTensorView>>> by_stage;
  for (const Stage& stage : executor_.stages()) {
    auto& [id, tensors] = by_stage.emplace_back(stage.id(), std::vector<NamedTensorView>());
    for (std::size_t index = 0; index < stage.layers().size(); ++index) {
      const std::int64_t layer = stage.first_layer() + static_cast<std::int64_t>(index);
      const auto& module = stage.layers()[index].module();
      for (const auto& parameter : module.named_parameters())
        tensors.emplace_back(tensor_name(layer, parameter.key()), parameter.value());
      for (const auto& buffer : module.named_buffers())
        tensors.emplace_back(tensor_name(layer, buffer.key()), buffer.value());
    }
  }
  return by_stage;
}

std::vector<std::pair<StageId, std::vector<Worker::NamedTensorView>>> Worker::state() const {
  auto by_stage = weights();
  const auto optimizer_state = optimizer_.state();
  for (auto& [id, tensors] : by_stage) {
    const std::vector<NamedTensorView> of_stage = tensors;
    for (const auto& [name, tensor] : of_stage) {
      for (const auto& [state_name, moment] : optimizer_state) {
        // "momentum.layers.0.linear.weight" belongs beside "layers.0.linear.weight".
        const auto prefix = state_name.size() - name.size();
        if (state_name.size() > name.size() && state_name[prefix - 1] == '.' && state_name.ends_with(name) &&
            state_name.find("layers.") == prefix)
          tensors.emplace_back("optimizer." + state_name, moment);
      }
    }
  }
  return by_stage;
}

void Worker::begin_accounting() {
  busy_ms_.assign(executor_.stages().size(), 0);
  sent_.assign(executor_.stages().size(), Bytes{});
  active_ms_ = 0;
  executor_.memory().reset_peak();
}

void Worker::account(const StepOutput& output) {
  if (output.events.empty()) return;
  active_ms_ += (output.events.back().end - output.events.front().start).count;
  for (const Event& event : output.events) {
    const auto stage = std::lower_bound(training_.stages.begin(), training_.stages.end(), event.action.stage);
    const auto local = static_cast<std::size_t>(stage - training_.stages.begin());
    if (is_compute(event.action.kind)) busy_ms_[local] += (event.end - event.start).count;
  }
  for (std::size_t local = 0; local < sent_.size(); ++local) sent_[local] += output.sent[local];
}

std::vector<StageReport> Worker::report() {
  std::vector<StageReport> reports;
  for (std::size_t local = 0; local < executor_.stages().size(); ++local) {
    const Stage& stage = executor_.stages()[local];
    StageReport report;
    report.stage = stage.id().value;
    report.rank = transport_.rank().value;
    report.first_layer = stage.first_layer();
    report.layers = static_cast<std::int64_t>(stage.layers().size());
    for (const Layer& layer : stage.layers())
      for (const at::Tensor& parameter : layer.module().parameters()) report.parameters += parameter.numel();
    report.busy_share = active_ms_ > 0 ? busy_ms_[local] / active_ms_ : 0;
    report.peak_memory = executor_.memory().peak();
    report.sent = sent_[local];
    reports.push_back(report);
  }
  return reports;
}

}  // namespace penstock
