#include "penstock/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numbers>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

const std::vector<std::string>& moment_names(const std::string& kind) {
  static const std::vector<std::string> sgd{"momentum"};
  static const std::vector<std::string> adamw{"first_moment", "second_moment"};
  return kind == "sgd" ? sgd : adamw;
}

void check_moment_share(const char* name, double value) {
  if (!(value >= 0 && value < 1))
    throw bad_input(fmt::format("{} is {}", name, value), "a number in [0, 1)", fmt::format("choose another {}", name));
}

}  // namespace

Optimizer::Optimizer(OptimizerSettings settings, std::vector<Named> parameters) : settings_(std::move(settings)) {
  if (settings_.kind != "adamw" && settings_.kind != "sgd")
    throw bad_input(fmt::format("optimizer \"{}\"", settings_.kind), "adamw or sgd", "choose one of them");
  check_moment_share("momentum", settings_.momentum);
  check_moment_share("beta1", settings_.beta1);
  check_moment_share("beta2", settings_.beta2);
  if (!(settings_.weight_decay >= 0) || !(settings_.epsilon > 0))
    throw bad_input(fmt::format("weight decay {}, epsilon {}", settings_.weight_decay, settings_.epsilon),
                    "a decay of at least 0 and an epsilon above 0", "choose others");
  for (auto& [name, parameter] : parameters) {
    Entry entry{std::move(name), parameter, {}};
    for (std::size_t moment = 0; moment < moment_names(settings_.kind).size(); ++moment)
      entry.moments.push_back(at::zeros_like(parameter));
    (parameter.dim() >= 2 ? decaying_ : others_).push_back(std::move(entry));
  }
}

void Optimizer::update(double learning_rate) {
  ++updates_;
  update_group(decaying_, settings_.weight_decay, learning_rate);
  update_group(others_, 0, learning_rate);
}

void Optimizer::update_group(const std::vector<Entry>& group, double weight_decay, double learning_rate) const {
  const at::NoGradGuard no_graph;
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<std::vector<at::Tensor>> moments(moment_names(settings_.kind).size());
  for (const Entry& entry : group) {
    if (!entry.parameter.grad().defined()) continue;
    parameters.push_back(entry.parameter);
    gradients.push_back(entry.parameter.grad());
    for (std::size_t moment = 0; moment < moments.size(); ++moment) moments[moment].push_back(entry.moments[moment]);
  }
  if (parameters.empty()) return;
  if (settings_.kind == "sgd") {
    // Without momentum there must be no buffers for it.
    const std::vector<at::Tensor> buffers = settings_.momentum > 0 ? moments[0] : std::vector<at::Tensor>();
    at::_fused_sgd_(parameters, gradients, buffers, weight_decay, settings_.momentum, learning_rate,
                    /*dampening=*/0, /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false);
  } else {
    const at::Tensor count =
        at::full({}, static_cast<double>(updates_), parameters.front().options().dtype(at::kFloat));
    const std::vector<at::Tensor> counts(parameters.size(), count);
    at::_fused_adamw_(parameters, gradients, moments[0], moments[1], {}, counts, learning_rate, settings_.beta1,
                      settings_.beta2, weight_decay, settings_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

std::vector<at::Tensor> Optimizer::everything() const {
  std::vector<at::Tensor> tensors;
  for (const auto* group : {&decaying_, &others_}) {
    for (const Entry& entry : *group) {
      tensors.push_back(entry.parameter);
      tensors.insert(tensors.end(), entry.moments.begin(), entry.moments.end());
    }
  }
  return tensors;
}

void Optimizer::keep() {
  const at::NoGradGuard no_graph;
  kept_.clear();
  for (const at::Tensor& tensor : everything()) kept_.push_back(tensor.clone());
  kept_updates_ = updates_;
}

void Optimizer::take_back() {
  const at::NoGradGuard no_graph;
  const std::vector<at::Tensor> tensors = everything();
  check_invariant(kept_.size() == tensors.size(), "an update taken back that was not kept");
  for (std::size_t index = 0; index < tensors.size(); ++index) tensors[index].copy_(kept_[index]);
  updates_ = kept_updates_;
  kept_.clear();
}

std::vector<Optimizer::Named> Optimizer::state() const {
  std::vector<Named> state;
  const auto& names = moment_names(settings_.kind);
  for (const auto* group : {&decaying_, &others_}) {
    for (const Entry& entry : *group)
      for (std::size_t moment = 0; moment < names.size(); ++moment)
        state.emplace_back(names[moment] + "." + entry.name, entry.moments[moment]);
  }
  return state;
}

double LearningRate::at(std::int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const auto length = static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
  const double progress = std::min(1.0, static_cast<double>(step - warmup) / length);
  return peak * (final_share + (1 - final_share) * (1 + std::cos(std::numbers::pi * progress)) / 2);
}

}  // namespace penstock
