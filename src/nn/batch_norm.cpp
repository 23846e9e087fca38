#include "penstock/nn/batch_norm.h"

#include <fmt/format.h>
#include <numeric>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

thread_local bool recomputing = false;

// All dimensions but that of the features.
std::vector<std::int64_t> reduced_dimensions(const at::Tensor& input) {
  std::vector<std::int64_t> dimensions{0};
  for (std::int64_t dimension = 2; dimension < input.dim(); ++dimension) dimensions.push_back(dimension);
  return dimensions;
}

}  // namespace

DeferredBatchNorm::DeferredBatchNorm(std::int64_t features, double momentum, double epsilon)
    : momentum_(momentum), epsilon_(epsilon) {
  if (features < 1 || !(momentum > 0 && momentum <= 1) || !(epsilon > 0))
    throw bad_input(fmt::format("a batch norm of {} features, momentum {}, epsilon {}", features, momentum, epsilon),
                    "at least one feature, a momentum in (0, 1] and an epsilon above 0", "choose others");
  weight_ = register_parameter("weight", at::ones({features}));
  bias_ = register_parameter("bias", at::zeros({features}));
  running_mean_ = register_buffer("running_mean", at::zeros({features}));
  running_var_ = register_buffer("running_var", at::ones({features}));
}

at::Tensor DeferredBatchNorm::forward(const at::Tensor& input) {
  if (is_training() && !recomputing) {
    const at::NoGradGuard no_graph;
    const std::int64_t features = running_mean_.numel();
    if (!gathered_.defined() || gathered_.device() != input.device())
      gathered_ = at::zeros({2 * features + 1}, input.options().dtype(at::kDouble));
    const at::Tensor values = input.to(at::kDouble);
    const auto dimensions = reduced_dimensions(input);
    gathered_.narrow(0, 0, features).add_(values.sum(dimensions));
    gathered_.narrow(0, features, features).add_(values.square().sum(dimensions));
    const std::int64_t elements = input.numel() / features;
    gathered_.narrow(0, 2 * features, 1).add_(static_cast<double>(elements));
  }
  return at::batch_norm(input, weight_, bias_, is_training() ? at::Tensor() : running_mean_,
                        is_training() ? at::Tensor() : running_var_, is_training(), momentum_, epsilon_,
                        /*cudnn_enabled=*/true);
}

void DeferredBatchNorm::take_minibatch() {
  if (!gathered_.defined()) return;
  const at::NoGradGuard no_graph;
  const at::Tensor sums = std::exchange(gathered_, {});
  const std::int64_t features = running_mean_.numel();
  const at::Tensor count = sums.narrow(0, 2 * features, 1);
  const at::Tensor mean = sums.narrow(0, 0, features) / count;
  // Unbiased, as libtorch's own: one sample alone says nothing of the variance.
  const at::Tensor variance =
      (sums.narrow(0, features, features) - count * mean.square()).clamp_min(0) / (count - 1).clamp_min(1);
  running_mean_.mul_(1 - momentum_).add_(mean.to(running_mean_.scalar_type()), momentum_);
  running_var_.mul_(1 - momentum_).add_(variance.to(running_var_.scalar_type()), momentum_);
}

void DeferredBatchNorm::forget_minibatch() { gathered_.reset(); }

RecomputeScope::RecomputeScope() : outer_(std::exchange(recomputing, true)) {}
RecomputeScope::~RecomputeScope() { recomputing = outer_; }
bool RecomputeScope::active() { return recomputing; }

}  // namespace penstock
