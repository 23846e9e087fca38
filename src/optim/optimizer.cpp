#include "penstock/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fnmatch.h>
#include <numbers>
#include <unordered_map>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

const std::vector<std::string>& moment_names(OptimizerKind kind) {
  static const std::vector<std::string> sgd{"momentum"};
  static const std::vector<std::string> adamw{"first_moment", "second_moment"};
  return kind == OptimizerKind::Sgd ? sgd : adamw;
}

void check_moment_share(const char* name, double value) {
  if (!(value >= 0 && value < 1))
    throw bad_input(fmt::format("{} is {}", name, value), "a number in [0, 1)", fmt::format("choose another {}", name));
}

void check(const OptimizerSettings& settings) {
  check_moment_share("momentum", settings.momentum);
  check_moment_share("beta1", settings.beta1);
  check_moment_share("beta2", settings.beta2);
  if (!(settings.weight_decay >= 0) || !(settings.epsilon > 0))
    throw bad_input(fmt::format("weight decay {}, epsilon {}", settings.weight_decay, settings.epsilon),
                    "a decay of at least 0 and an epsilon above 0", "choose others");
  for (const UpdateRule& rule : settings.rules)
    if (!(rule.weight_decay.value_or(0) >= 0) || !(rule.learning_rate_factor >= 0) ||
        !std::isfinite(rule.learning_rate_factor))
      throw bad_input(fmt::format("a weight decay of {} and a factor of {} in the optimizer's rule for \"{}\"",
                                  rule.weight_decay.value_or(0), rule.learning_rate_factor, rule.names),
                      "both at least 0", "choose others");
}

// Where two layouts differ only in the strides of dimensions that have one element, they are the same.
bool same_strides(const at::Tensor& a, const at::Tensor& b) {
  for (std::int64_t dimension = 0; dimension < a.dim(); ++dimension)
    if (a.size(dimension) != 1 && a.stride(dimension) != b.stride(dimension)) return false;
  return true;
}

// The fused kernels pass over the memory of parameter, gradient and moments as if it were one row of each.
bool can_be_fused(const at::Tensor& parameter, const std::vector<at::Tensor>& moments) {
  const bool has_kernel = parameter.scalar_type() == at::kFloat || parameter.scalar_type() == at::kDouble;
  return has_kernel && parameter.numel() > 0 && parameter.is_non_overlapping_and_dense() &&
         std::all_of(moments.begin(), moments.end(),
                     [&](const at::Tensor& moment) { return same_strides(parameter, moment); });
}

}  // namespace

bool matches(const UpdateRule& rule, const std::string& name) {
  return fnmatch(rule.names.c_str(), name.c_str(), /*flags=*/0) == 0;
}

at::Tensor in_layout_of(const at::Tensor& parameter, at::Tensor gradient) {
  if (!gradient.defined()) return gradient;
  if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
  if (!parameter.is_non_overlapping_and_dense()) return gradient.contiguous();
  if (same_strides(parameter, gradient)) return gradient;
  return at::empty_strided(parameter.sizes(), parameter.strides(), gradient.options()).copy_(gradient);
}

Optimizer::Optimizer(OptimizerSettings settings, const std::vector<Parameter>& parameters, const MakeOptimizer& outside)
    : settings_(std::move(settings)), is_outside_(static_cast<bool>(outside)) {
  check(settings_);
  if (is_outside_ && !settings_.rules.empty())
    throw bad_input("rules for an optimizer of another library", "none", "give it parameter groups of its own instead");
  std::vector<Parameter> once;
  for (const Parameter& parameter : parameters) {
    const bool known = std::any_of(once.begin(), once.end(),
                                   [&](const Parameter& other) { return other.tensor.is_same(parameter.tensor); });
    if (!known) once.push_back(parameter);
  }
  if (!is_outside_)
    for (const Parameter& parameter : once) add(parameter);
  else if (!once.empty())
    outside_ = outside(once);
}

void Optimizer::add(const Parameter& parameter) {
  Entry entry{parameter.name, parameter.tensor, parameter.tensor.dim() >= 2 ? settings_.weight_decay : 0};
  const std::string& name = parameter.rules_of.empty() ? parameter.name : parameter.rules_of;
  const auto rule = std::find_if(settings_.rules.begin(), settings_.rules.end(),
                                 [&](const UpdateRule& each) { return matches(each, name); });
  if (rule != settings_.rules.end()) {
    entry.weight_decay = rule->weight_decay.value_or(entry.weight_decay);
    entry.learning_rate_factor = rule->learning_rate_factor;
  }
  if (settings_.masters && at::isReducedFloatingType(parameter.tensor.scalar_type()))
    entry.master = parameter.tensor.detach().to(at::kFloat);
  const at::Tensor updated = entry.updated();
  for (std::size_t moment = 0; moment < moment_names(settings_.kind).size(); ++moment)
    entry.moments.push_back(at::zeros_like(updated));
  entry.fused = can_be_fused(updated, entry.moments);
  if (entry.fused) {
    // With a master each is alone, so that one gradient at a time is there in float32.
    auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& each) {
      return !entry.master.defined() && each.weight_decay == entry.weight_decay &&
             each.learning_rate_factor == entry.learning_rate_factor && each.dtype == updated.scalar_type() &&
             !entries_[each.entries.front()].master.defined();
    });
    if (group == groups_.end())
      group = groups_.insert(group, {entry.weight_decay, entry.learning_rate_factor, updated.scalar_type()});
    group->entries.push_back(entries_.size());
  } else {
    others_.push_back(entries_.size());
  }
  entries_.push_back(std::move(entry));
}

void Optimizer::update(double learning_rate) {
  const at::NoGradGuard no_graph;
  ++updates_;
  if (outside_) return outside_->update(learning_rate);
  for (Entry& entry : entries_)
    if (entry.parameter.grad().defined()) ++entry.updates;
  for (const Group& group : groups_) update_fused(group, learning_rate * group.learning_rate_factor);
  for (const std::size_t index : others_)
    if (entries_[index].parameter.grad().defined())
      update_plainly(entries_[index], learning_rate * entries_[index].learning_rate_factor);
  for (const Entry& entry : entries_)
    if (entry.master.defined() && entry.parameter.grad().defined()) entry.parameter.detach().copy_(entry.master);
}

void Optimizer::renew_masters() {
  const at::NoGradGuard no_graph;
  for (const Entry& entry : entries_)
    if (entry.master.defined()) entry.master.copy_(entry.parameter);
}

at::Tensor Optimizer::Entry::gradient() const {
  return in_layout_of(updated(), master.defined() ? parameter.grad().to(at::kFloat) : parameter.grad());
}

void Optimizer::update_fused(const Group& group, double learning_rate) {
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<std::vector<at::Tensor>> moments(moment_names(settings_.kind).size());
  std::vector<at::Tensor> counts;
  std::unordered_map<std::int64_t, at::Tensor> known_counts;
  for (const std::size_t index : group.entries) {
    const Entry& entry = entries_[index];
    if (!entry.parameter.grad().defined()) continue;
    parameters.push_back(entry.updated());
    gradients.push_back(entry.gradient());
    for (std::size_t moment = 0; moment < moments.size(); ++moment) moments[moment].push_back(entry.moments[moment]);
    at::Tensor& count = known_counts[entry.updates];
    if (!count.defined())
      count = at::full({}, static_cast<double>(entry.updates), entry.parameter.options().dtype(at::kFloat));
    counts.push_back(count);
  }
  if (parameters.empty()) return;
  if (settings_.kind == OptimizerKind::Sgd) {
    // Without momentum there must be no buffers for it. With it, one that is zero gives what the first step of
    // libtorch's gives: the gradient itself.
    const std::vector<at::Tensor> buffers = settings_.momentum > 0 ? moments[0] : std::vector<at::Tensor>();
    at::_fused_sgd_(parameters, gradients, buffers, group.weight_decay, settings_.momentum, learning_rate,
                    /*dampening=*/0, /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false);
  } else {
    at::_fused_adamw_(parameters, gradients, moments[0], moments[1], {}, counts, learning_rate, settings_.beta1,
                      settings_.beta2, group.weight_decay, settings_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

// The operations of torch::optim, in their order: what a parameter's dtype rounds, it rounds alike.
void Optimizer::update_plainly(Entry& entry, double learning_rate) const {
  const at::Tensor parameter = entry.updated().detach();
  at::Tensor gradient = entry.gradient();
  if (settings_.kind == OptimizerKind::Sgd) {
    if (entry.weight_decay != 0) gradient = gradient.add(parameter, entry.weight_decay);
    if (settings_.momentum > 0) gradient = entry.moments[0].mul_(settings_.momentum).add_(gradient);
    parameter.add_(gradient, -learning_rate);
    return;
  }
  const at::Tensor& first = entry.moments[0];
  const at::Tensor& second = entry.moments[1];
  const auto count = static_cast<double>(entry.updates);
  if (entry.weight_decay != 0) parameter.mul_(1 - learning_rate * entry.weight_decay);
  first.mul_(settings_.beta1).add_(gradient, 1 - settings_.beta1);
  second.mul_(settings_.beta2).addcmul_(gradient, gradient, 1 - settings_.beta2);
  const at::Tensor scale = (second.sqrt() / std::sqrt(1 - std::pow(settings_.beta2, count))).add_(settings_.epsilon);
  parameter.addcdiv_(first, scale, -learning_rate / (1 - std::pow(settings_.beta1, count)));
}

std::vector<at::Tensor> Optimizer::everything() const {
  std::vector<at::Tensor> tensors;
  for (const Entry& entry : entries_) {
    tensors.push_back(entry.parameter);
    if (entry.master.defined()) tensors.push_back(entry.master);
    tensors.insert(tensors.end(), entry.moments.begin(), entry.moments.end());
  }
  return tensors;
}

void Optimizer::keep() {
  check_invariant(!is_outside_, "an update of another library's optimizer that may be taken back");
  const at::NoGradGuard no_graph;
  kept_.clear();
  kept_counts_.clear();
  for (const at::Tensor& tensor : everything()) kept_.push_back(tensor.clone());
  for (const Entry& entry : entries_) kept_counts_.push_back(entry.updates);
  kept_updates_ = updates_;
}

void Optimizer::take_back() {
  const at::NoGradGuard no_graph;
  const std::vector<at::Tensor> tensors = everything();
  check_invariant(kept_.size() == tensors.size(), "an update taken back that was not kept");
  for (std::size_t index = 0; index < tensors.size(); ++index) tensors[index].copy_(kept_[index]);
  for (std::size_t index = 0; index < entries_.size(); ++index) entries_[index].updates = kept_counts_[index];
  updates_ = kept_updates_;
  kept_.clear();
}

std::vector<Optimizer::Named> Optimizer::state() const {
  if (outside_) return outside_->state();
  std::vector<Named> state;
  const auto& names = moment_names(settings_.kind);
  for (const Entry& entry : entries_) {
    if (entry.master.defined()) state.emplace_back("master." + entry.name, entry.master);
    for (std::size_t moment = 0; moment < names.size(); ++moment)
      state.emplace_back(names[moment] + "." + entry.name, entry.moments[moment]);
    if (settings_.kind == OptimizerKind::AdamW)
      state.emplace_back(fmt::format("{}.{}", updates_name, entry.name), at::scalar_tensor(entry.updates, at::kLong));
  }
  return state;
}

void Optimizer::resume(std::int64_t updates, const std::vector<Named>& counts) {
  updates_ = updates;
  std::unordered_map<std::string, std::int64_t> known;
  for (const auto& [name, count] : counts) known.emplace(name, count.item<std::int64_t>());
  for (Entry& entry : entries_) {
    const auto found = known.find(fmt::format("{}.{}", updates_name, entry.name));
    entry.updates = found != known.end() ? found->second : updates;
  }
}

void Optimizer::resume_outside(std::int64_t updates, const std::vector<Named>& state) {
  updates_ = updates;
  if (outside_) outside_->resume(state, updates);
}

double LearningRate::at(std::int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const auto length = static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
  const double progress = std::min(1.0, static_cast<double>(step - warmup) / length);
  return peak * (final_share + (1 - final_share) * (1 + std::cos(std::numbers::pi * progress)) / 2);
}

}  // namespace penstock
