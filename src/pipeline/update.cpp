// From gradients to weights: the totals that the ranks exchange, the one division, clipping, skipping, and the update
// that does not wait.
#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

#include "pipeline/worker.h"

namespace penstock {
namespace {

// A norm of half precision would overflow, or round to a few digits.
double norm_of(const at::Tensor& gradient) {
  return (at::isReducedFloatingType(gradient.scalar_type()) ? gradient.norm(2, at::kFloat) : gradient.norm())
      .item<double>();
}

}  // namespace

// The number of this rank's losses, the losses and their weights, then one entry for each parameter: its layer, its
// place in it, and the square of its norm.
std::vector<double> Worker::own_totals(const StepOutput& output) const {
  std::vector<double> values{static_cast<double>(output.loss_sums.size())};
  values.insert(values.end(), output.loss_sums.begin(), output.loss_sums.end());
  values.insert(values.end(), output.loss_weights.begin(), output.loss_weights.end());
  for (const Parameter& parameter : parameters_) {
    if (parameter.counted_elsewhere || !parameter.tensor.grad().defined()) continue;
    const double norm = norm_of(parameter.tensor.grad());
    values.insert(values.end(),
                  {static_cast<double>(parameter.layer), static_cast<double>(parameter.place), norm * norm});
  }
  return values;
}

// Losses by microbatch and squares by parameter, so that they add up in one order whichever rank computed them.
Worker::Totals Worker::sum_totals(const std::vector<std::vector<double>>& by_rank) const {
  Totals totals;
  totals.losses.resize(static_cast<std::size_t>(training_.microbatches));
  std::vector<std::array<double, 3>> squares;  // layer, place, square
  for (const std::vector<double>& of_rank : by_rank) {
    const auto losses = static_cast<std::size_t>(of_rank[0]);
    for (std::size_t microbatch = 0; microbatch < losses; ++microbatch) {
      totals.losses[microbatch].sum += of_rank[1 + microbatch];
      totals.losses[microbatch].weight += of_rank[1 + losses + microbatch];
    }
    for (std::size_t next = 1 + 2 * losses; next < of_rank.size(); next += 3)
      squares.push_back({of_rank[next], of_rank[next + 1], of_rank[next + 2]});
  }
  std::sort(squares.begin(), squares.end(),
            [](const auto& a, const auto& b) { return std::pair(a[0], a[1]) < std::pair(b[0], b[1]); });
  double sum = 0;
  for (const auto& [layer, place, square] : squares) sum += square;
  for (const MicrobatchLoss& loss : totals.losses) {
    totals.loss_sum += loss.sum;
    totals.weight += loss.weight;
  }
  totals.scaled_norm = std::sqrt(sum);
  return totals;
}

StepResult Worker::judge(const Totals& totals, std::int64_t step) const {
  if (!(totals.weight > 0))
    throw run_failed(fmt::format("the weight of step {}'s minibatch is {}", step, totals.weight), "more than 0",
                     "check that the loss returns the number of samples or unmasked tokens");
  StepResult result;
  result.loss = totals.loss_sum / totals.weight;
  result.weight = totals.weight;
  result.loss_scale = loss_scale_.scale;
  result.gradient_norm = totals.scaled_norm / (totals.weight * loss_scale_.scale);
  result.losses = totals.losses;
  if (std::isfinite(result.loss) && std::isfinite(result.gradient_norm)) return result;
  // A scale of 1 scales nothing: what is not finite then, is not for want of range above.
  if (!loss_scale_state_.defined() || loss_scale_.scale <= 1)
    throw run_failed(fmt::format("step {} has loss {} and gradient norm {}", step, result.loss, result.gradient_norm),
                     "finite numbers", "lower the learning rate, clip the gradient, or find it with `check_finite`");
  result.skipped = true;
  return result;
}

// The one division of the gradients, with clipping in the same factor.
double Worker::factor_of(const StepResult& result) const {
  const double factor = 1 / (result.weight * loss_scale_.scale);
  const double clip = plan_.settings.clip_norm;
  return clip > 0 && result.gradient_norm > clip ? factor * (clip / (result.gradient_norm + 1e-6)) : factor;
}

std::vector<at::Tensor> Worker::gradients() const {
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : parameters_)
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  return gradients;
}

// In one layout whatever autograd and messages left: norms add up in the order of memory.
void Worker::settle_gradients() {
  const at::NoGradGuard no_graph;
  for (const Parameter& parameter : parameters_) {
    at::Tensor& gradient = parameter.tensor.mutable_grad();
    if (gradient.defined()) gradient = in_layout_of(parameter.tensor, gradient);
  }
}

// Out of place: whoever kept the sums can still clip them.
void Worker::apply(double factor, double learning_rate) {
  const at::NoGradGuard no_graph;
  const std::vector<at::Tensor> sums = gradients();
  if (sums.empty()) {
    // Counts the update all the same.
  } else if (plan_.settings.post_validation) {
    auto next = at::_foreach_mul(sums, factor);
    auto divided = next.begin();
    for (const Parameter& parameter : parameters_)
      if (parameter.tensor.grad().defined()) parameter.tensor.mutable_grad() = std::move(*divided++);
  } else {
    at::_foreach_mul_(sums, factor);
  }
  optimizer_.update(learning_rate);
}

// Of the whole minibatch, from the ranks of the last stage, which know it long before the gradients are there.
double Worker::share_weight(const StepOutput& output) {
  std::vector<RankId> holders = plan_.training->placement.holders.back();
  std::sort(holders.begin(), holders.end());
  const auto tag = [](RankId from) { return Tag{MessageKind::LossWeights, from.value, 0}; };
  if (std::find(holders.begin(), holders.end(), transport_.rank()) != holders.end()) {
    const at::Tensor weights = at::tensor(output.loss_weights, at::kDouble);
    for (std::int32_t rank = 0; rank < transport_.ranks(); ++rank)
      if (RankId{rank} != transport_.rank()) transport_.send(RankId{rank}, tag(transport_.rank()), {weights});
  }
  std::vector<double> weights(static_cast<std::size_t>(training_.microbatches));
  for (const RankId holder : holders) {
    const at::Tensor of_holder = holder == transport_.rank() ? at::tensor(output.loss_weights, at::kDouble)
                                                             : transport_.receive(holder, tag(holder)).front();
    for (std::size_t microbatch = 0; microbatch < weights.size(); ++microbatch)
      weights[microbatch] += of_holder.const_data_ptr<double>()[microbatch];
  }
  return std::accumulate(weights.begin(), weights.end(), 0.0);
}

StepResult Worker::update(const StepOutput& output, const UpdateSettings& settings) {
  const std::vector<double> own = own_totals(output);
  // What ranks exchange is freed by the last to read it, on whichever thread: it is no rank's memory.
  const auto gathered = [&](const auto& gather) {
    const UncountedMemory exchanged;
    return gather(transport_, own);
  };
  StepResult result;
  if (!plan_.settings.post_validation) {
    result = judge(sum_totals(gathered(all_gather)), settings.step);
    if (!result.skipped) apply(factor_of(result), settings.learning_rate);
    finish_update(result);
    return result;
  }
  StepResult hoped;
  {
    const UncountedMemory exchanged;
    offer_to_all(transport_, own);
    hoped.weight = share_weight(output);
  }
  const std::vector<at::Tensor> sums = gradients();
  optimizer_.keep();
  apply(factor_of(hoped), settings.learning_rate);
  result = judge(sum_totals(gathered(gather_from_all)), settings.step);
  if (result.skipped || factor_of(result) != factor_of(hoped)) {
    optimizer_.take_back();
    auto next = sums.begin();
    for (const Parameter& parameter : parameters_)
      if (parameter.tensor.grad().defined()) parameter.tensor.mutable_grad() = *next++;
    if (!result.skipped) apply(factor_of(result), settings.learning_rate);
  }
  optimizer_.discard_kept();
  finish_update(result);
  return result;
}

void Worker::finish_update(const StepResult& result) {
  for (const Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
  for (const auto& norm : batch_norms_) {
    if (result.skipped)
      norm->forget_minibatch();
    else
      norm->take_minibatch();
  }
  if (!loss_scale_state_.defined()) return;
  loss_scale_.saw(!result.skipped);
  loss_scale_state_.copy_(at::tensor(
      {loss_scale_.scale, static_cast<double>(loss_scale_.clean_steps), static_cast<double>(optimizer_.updates())},
      at::kDouble));
}

}  // namespace penstock
