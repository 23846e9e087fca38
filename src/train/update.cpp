// From gradients to weights: what the ranks tell each other, the one division, clipping, skipping, and the update that
// does not wait.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"

#include "train/worker.h"

namespace penstock {
namespace {

// What a process tells the others with its totals, as bits: the first that it still writes, each other one which signal
// asks for the end.
constexpr unsigned says_saving = 1;

unsigned said_by(const UpdateSettings& settings) {
  check_invariant(settings.stop_signal >= 0 && settings.stop_signal < 32, "a signal is a bit of 32");
  const unsigned stop = settings.stop_signal == 0 ? 0U : 1U << static_cast<unsigned>(settings.stop_signal);
  return stop | (settings.saving ? says_saving : 0U);
}

int stop_signal_in(unsigned said) {
  const unsigned stops = said & ~says_saving;
  return stops == 0 ? 0 : std::countr_zero(stops);
}

// A norm of half precision would overflow, or round to a few digits.
double norm_of(const at::Tensor& gradient) {
  return (at::isReducedFloatingType(gradient.scalar_type()) ? gradient.norm(2, at::kFloat) : gradient.norm())
      .item<double>();
}

}  // namespace

// First what the process says besides, then this rank's losses and weights, then one entry for each parameter: its
// layer, its place in it, and the square of its norm.
std::vector<double> Worker::own_totals(const StepOutput& output, const UpdateSettings& settings) const {
  std::vector<double> values{static_cast<double>(said_by(settings)), static_cast<double>(output.loss_sums.size())};
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
    totals.said |= static_cast<unsigned>(of_rank[0]);
    const auto losses = static_cast<std::size_t>(of_rank[1]);
    for (std::size_t microbatch = 0; microbatch < losses; ++microbatch) {
      totals.losses[microbatch].sum += of_rank[2 + microbatch];
      totals.losses[microbatch].weight += of_rank[2 + losses + microbatch];
    }
    for (std::size_t next = 2 + 2 * losses; next < of_rank.size(); next += 3)
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
  result.stop_signal = stop_signal_in(totals.said);
  result.saving = (totals.said & says_saving) != 0;
  if (std::isfinite(result.loss) && std::isfinite(result.gradient_norm)) return result;
  // A scale of 1 scales nothing: what is not finite then, is not for want of range above.
  if (!loss_scale_state_.defined() || loss_scale_.scale <= 1)
    throw run_failed(fmt::format("step {} has loss {} and gradient norm {}", step, result.loss, result.gradient_norm),
                     "finite numbers", "lower the learning rate, clip the gradient, or find it with --check-finite");
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
  const std::vector<double> own = own_totals(output, settings);
  StepResult result;
  if (!plan_.settings.post_validation) {
    result = judge(sum_totals(uncounted([&] { return all_gather(transport_, own); })), settings.step);
    if (!result.skipped) apply(factor_of(result), settings.learning_rate);
    finish_update(result);
    return result;
  }
  StepResult hoped;
  hoped.weight = uncounted([&] {
    offer_to_all(transport_, own);
    return share_weight(output);
  });
  const std::vector<at::Tensor> sums = gradients();
  optimizer_.keep();
  apply(factor_of(hoped), settings.learning_rate);
  result = judge(sum_totals(uncounted([&] { return gather_from_all(transport_, own); })), settings.step);
  if (result.skipped || factor_of(result) != factor_of(hoped)) {
    optimizer_.take_back();
    auto next = sums.begin();
    for (const Parameter& parameter : parameters_)
      if (parameter.tensor.grad().defined()) parameter.tensor.mutable_grad() = *next++;
    if (!result.skipped) apply(factor_of(result), settings.learning_rate);
  }
  optimizer_.let_go();
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
