#include "pipeline/worker.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <unordered_map>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/exec/device.h"
#include "penstock/nn/buffers.h"
#include "penstock/nn/parameters.h"

namespace penstock {
namespace {

std::vector<std::shared_ptr<DeferredBatchNorm>> find_batch_norms(const std::vector<Stage>& stages) {
  std::vector<std::shared_ptr<DeferredBatchNorm>> found;
  for (const Stage& stage : stages)
    for (const Layer& layer : stage.layers())
      for (auto& norm : batch_norms_of(layer)) found.push_back(std::move(norm));
  return found;
}

}  // namespace

Worker::Worker(const PipelinePlan& plan, Transport& transport, const Clock& clock)
    : plan_(plan),
      transport_(transport),
      clock_(clock),
      training_(compile(plan.training, transport.rank())),
      memory_(plan.settings.memory_limit),
      executor_(build_stages(plan, training_, transport.rank(), held_elsewhere_), transport, clock, memory_,
                plan.settings.boundary_dtype),
      copies_(plan.training->placement, plan.ties, executor_.stages(),
              {plan.settings.gradient_bucket, plan.settings.gradient_tree > 0, plan.settings.shard_optimizer},
              transport, memory_),
      gradient_tree_(executor_.stages(),
                     gradient_runs(plan.settings.gradient_tree, plan.settings.replicas, plan.training->microbatches),
                     plan.training->microbatches),
      parameters_(find_parameters(/*learning=*/true)),
      frozen_(find_parameters(/*learning=*/false)),
      batch_norms_(find_batch_norms(executor_.stages())),
      optimizer_(plan.settings.optimizer, updated_parameters(), plan.settings.outside_optimizer),
      update_choice_(asked_to_update_first()) {
  if (plan.settings.precision == Precision::Float16)
    loss_scale_state_ = at::tensor({loss_scale_.scale, 0.0, 0.0}, at::kDouble);
  else
    loss_scale_.scale = 1;
  begin_accounting();
}

void Worker::meet() {
  check_rules();
  share_initial_ties();
  optimizer_.renew_masters();
  begin_accounting();
}

std::vector<PlacedLayer> Worker::layers() const {
  std::vector<PlacedLayer> layers;
  for (const Stage& stage : executor_.stages()) {
    for (std::size_t index = 0; index < stage.layers().size(); ++index) {
      const std::int64_t layer = stage.first_layer() + static_cast<std::int64_t>(index);
      layers.push_back({transport_.rank(), layer, &stage.layers()[index], held_elsewhere_.contains(layer)});
    }
  }
  return layers;
}

std::vector<Stage> Worker::build_stages(const PipelinePlan& plan, const Program& program, RankId rank,
                                        std::set<std::int64_t>& held_elsewhere) {
  std::vector<Stage> stages;
  for (const StageId stage : program.stages) {
    const at::Device device = device_of(plan, rank);
    StageParts parts;
    parts.stage = stage;
    parts.first_layer = plan.settings.cut[stage.index()];
    parts.device = device;
    parts.seed = plan.settings.seed;
    parts.skips = plan.network.skips;
    parts.offload = plan.settings.offload;
    parts.precision = plan.settings.precision;
    parts.check_finite = plan.settings.check_finite;
    parts.copied = plan.training->placement.holders[stage.index()].size() > 1;
    const std::vector<bool>& recompute = plan.settings.recompute;
    for (std::int64_t layer = parts.first_layer; layer < end_of_stage(plan, stage); ++layer) {
      Layer built = build_layer(plan.network, layer, plan.settings.seed, device);
      if (built.is_held_elsewhere()) held_elsewhere.insert(layer);
      parts.layers.push_back(std::move(built));
      const auto index = static_cast<std::size_t>(layer);
      parts.recompute.push_back(index < recompute.size() && recompute[index]);
      if (parts.copied) check_copied(parts.layers.back(), layer);
    }
    if (stage.value + 1 == plan.training->stages) parts.loss = plan.network.loss;
    stages.emplace_back(std::move(parts));
  }
  return stages;
}

std::vector<Worker::Parameter> Worker::find_parameters(bool learning) const {
  std::vector<Parameter> parameters;
  for (const Stage& stage : executor_.stages()) {
    for (std::size_t index = 0; index < stage.layers().size(); ++index) {
      const std::int64_t layer = stage.first_layer() + static_cast<std::int64_t>(index);
      std::int64_t place = 0;
      for (ModuleParameter& parameter : parameters_of(stage.layers()[index])) {
        if (parameter.tensor.requires_grad() != learning) continue;
        const bool copy = std::any_of(plan_.network.ties.begin(), plan_.network.ties.end(), [&](const Tie& tie) {
          const auto& names = parameter.names;
          return tie.copy.layer == layer && std::find(names.begin(), names.end(), tie.copy.name) != names.end();
        });
        const bool elsewhere = plan_.settings.shard_optimizer ? copies_.updated_elsewhere(parameter.tensor)
                                                              : !is_first_holder_of(stage.id());
        parameters.push_back(
            {layer, place++, std::move(parameter.names), std::move(parameter.tensor), copy || elsewhere});
      }
    }
  }
  return parameters;
}

// What is tied is updated by the rules of its owner in every place, so that it stays equal.
std::vector<Optimizer::Parameter> Worker::updated_parameters() const {
  std::vector<Optimizer::Parameter> updated;
  for (const Parameter& parameter : parameters_) {
    if (copies_.updated_elsewhere(parameter.tensor)) continue;
    const std::string name = tensor_name(parameter.layer, parameter.names.front());
    Optimizer::Parameter next{name, parameter.tensor, name};
    for (const std::string& alias : parameter.names)
      if (const TieGroup* group = group_of(plan_.ties, {parameter.layer, alias}))
        next.rules_of = tensor_name(group->owner.layer, group->owner.name);
    updated.push_back(std::move(next));
  }
  return updated;
}

// A pattern that is misspelt would change nothing and say nothing. Known only together: no rank has all names.
void Worker::check_rules() {
  const std::vector<UpdateRule>& rules = plan_.settings.optimizer.rules;
  if (rules.empty()) return;
  std::vector<double> met(rules.size());
  for (const Optimizer::Parameter& parameter : updated_parameters())
    for (std::size_t rule = 0; rule < rules.size(); ++rule)
      if (matches(rules[rule], parameter.rules_of)) met[rule] = 1;
  const auto by_rank = [&] {
    const UncountedMemory exchanged;
    return all_gather(transport_, met);
  }();
  for (std::size_t rule = 0; rule < rules.size(); ++rule)
    if (std::all_of(by_rank.begin(), by_rank.end(), [&](const auto& counts) { return counts[rule] == 0; }))
      throw bad_input(
          fmt::format("an optimizer's rule for \"{}\", which is the name of no parameter", rules[rule].names),
          "a pattern such as layers.0.* or *.bias, for tied parameters of their owner's name",
          "correct OptimizerSettings::rules");
}

int Worker::place_among_holders(StageId stage) const {
  const auto& holders = plan_.training->placement.holders[stage.index()];
  return static_cast<int>(std::find(holders.begin(), holders.end(), transport_.rank()) - holders.begin());
}

WorkerStep Worker::train(StepInput input, const UpdateSettings& settings,
                         const std::function<void(const StepResult&)>& on_checked) {
  input.settings.loss_scale = loss_scale_.scale;
  StepHooks hooks{copies_.reduction(), {}, {}};
  gradient_tree_.join(hooks.reduction);
  if (unchecked_) {
    hooks.confirmation.lead = &plan_.leads.at(transport_.rank().index());
    hooks.confirmation.weights_stay = [&](StepSettings& next) {
      const CheckedUpdate checked = check_update().value();
      next.loss_scale = loss_scale_.scale;
      if (!checked.stays) gradient_tree_.begin();
      on_checked(checked.result);
      return checked.stays;
    };
  }
  // Behind the check, so that all ranks know alike how this step updates.
  hooks.on_loss_weights = [&](const std::vector<double>& weights) {
    if (updates_first()) send_loss_weights(weights);
  };
  copies_.begin();
  gradient_tree_.begin();
  StepOutput output = executor_.run(training_, input, hooks);
  gradient_tree_.finish();
  copies_.add_up();
  settle_gradients();
  add_tied_gradients();
  copies_.hand_back_tied();
  std::optional<StepResult> result = update(output, settings);
  // Behind the update, which has waited for all of the passes.
  executor_.resolve_times(output);
  account(output);
  WorkerStep done{std::move(result),          std::move(output.events),
                  std::move(output.receipts), std::move(output.activations),
                  std::move(output.outputs),  {}};
  done.peak_memory = peak_memory();
  return done;
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

// "momentum.layers.0.linear.weight" stands behind "layers.0.linear.weight".
std::vector<std::pair<StageId, std::vector<Worker::NamedTensorView>>> Worker::state() const {
  auto by_stage = weights();
  std::unordered_map<std::string, std::vector<NamedTensorView>> state_by_parameter;
  for (auto& [name, tensor] : optimizer_.state())
    state_by_parameter[name.substr(name.find('.') + 1)].emplace_back(optimizer_prefix + name, tensor);
  for (auto& [id, tensors] : by_stage) {
    const std::vector<NamedTensorView> stage_weights = tensors;
    for (const auto& [name, tensor] : stage_weights) {
      const auto found = state_by_parameter.find(name);
      if (found != state_by_parameter.end()) tensors.insert(tensors.end(), found->second.begin(), found->second.end());
    }
  }
  return by_stage;
}

std::string Worker::name_to_load(const std::string& name) const {
  const std::size_t prefix = name.find("layers.");
  for (const TieGroup& group : plan_.ties)
    for (const ParameterAddress& member : group.members)
      if (name.compare(prefix, std::string::npos, tensor_name(member.layer, member.name)) == 0)
        return name.substr(0, prefix) + tensor_name(group.owner.layer, group.owner.name);
  return name;
}

bool is_update_count(const std::string& name) {
  return name.starts_with(fmt::format("{}{}.", optimizer_prefix, updates_name));
}

void Worker::resume(std::int64_t updates, const at::Tensor& loss_scale_state,
                    const std::vector<NamedTensorView>& counts) {
  if (loss_scale_state_.defined() && loss_scale_state.defined()) {
    loss_scale_state_.copy_(loss_scale_state);
    const auto* state = loss_scale_state_.const_data_ptr<double>();
    loss_scale_.scale = state[0];
    loss_scale_.clean_steps = static_cast<int>(state[1]);
    updates = static_cast<std::int64_t>(state[2]);
  }
  std::vector<Optimizer::Named> update_counts;
  const std::size_t prefix = std::string(optimizer_prefix).size();
  update_counts.reserve(counts.size());
  for (const auto& [name, count] : counts) update_counts.emplace_back(name.substr(prefix), count);
  optimizer_.resume(updates, update_counts);
}

void Worker::resume_outside(std::int64_t updates, const CheckpointReader& reader) {
  // "optimizer.exp_avg.layers.0.weight": what it is, and of which parameter.
  std::unordered_map<std::string, std::vector<std::string>> saved;
  for (const std::string& name : reader.names()) {
    if (!name.starts_with(optimizer_prefix)) continue;
    const std::size_t begin = std::string_view(optimizer_prefix).size();
    const std::size_t dot = name.find('.', begin);
    if (dot != std::string::npos) saved[name.substr(dot + 1)].push_back(name.substr(begin, dot - begin));
  }
  std::vector<Optimizer::Named> state;
  for (const Optimizer::Parameter& parameter : updated_parameters()) {
    const std::string loaded = name_to_load(parameter.name);
    for (const std::string& what : saved[loaded])
      state.emplace_back(what + "." + parameter.name,
                         reader.read(fmt::format("{}{}.{}", optimizer_prefix, what, loaded)));
  }
  optimizer_.resume_outside(updates, state);
}

void Worker::begin_accounting() {
  busy_ms_.assign(executor_.stages().size(), 0);
  sent_.assign(executor_.stages().size(), Bytes{});
  copies_.begin_accounting();
  active_ms_ = 0;
  memory_.reset_peak();
  reset_device_peak(device_of(plan_, transport_.rank()));
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

Bytes Worker::peak_memory() const {
  const auto on_device = device_memory(device_of(plan_, transport_.rank()));
  return on_device ? on_device->peak : memory_.peak();
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
      for (const ModuleParameter& parameter : parameters_of(layer)) report.parameters += parameter.tensor.numel();
    report.busy_share = active_ms_ > 0 ? busy_ms_[local] / active_ms_ : 0;
    report.peak_memory = peak_memory();
    report.sent = sent_[local] + copies_.sent(local);
    reports.push_back(report);
  }
  return reports;
}

}  // namespace penstock
