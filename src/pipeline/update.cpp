// From gradients to weights: the totals that the ranks exchange, the one division, clipping, skipping, and the update
// that does not wait.
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/exec/device.h"
#include "penstock/exec/message_kind.h"
#include "penstock/transport/layout.h"

#include "pipeline/worker.h"

namespace penstock {
namespace {

Tag weights_from(RankId rank) { return {MessageKind::LossWeights, rank.value, 0}; }

double unclipped_factor(double weight, double loss_scale) { return 1 / (weight * loss_scale); }

}  // namespace

// As `sum_totals` reads them. A device is waited for once.
std::vector<double> Worker::own_totals(const StepOutput& output) {
  std::vector<const Parameter*> counted;
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : parameters_) {
    if (parameter.counted_elsewhere || !parameter.tensor.grad().defined()) continue;
    counted.push_back(&parameter);
    gradients.push_back(parameter.tensor.grad());
  }
  std::vector<at::Tensor> parts;
  if (output.loss_sums.defined()) parts.push_back(output.loss_sums);
  if (!gradients.empty()) parts.push_back(norms_of(gradients));
  std::vector<double> values{own_pace(), static_cast<double>(output.loss_weights.size())};
  if (parts.empty()) return values;
  const at::Tensor numbers = at::cat(parts).cpu();
  const auto* next = numbers.const_data_ptr<double>();
  const std::size_t losses = output.loss_weights.size();
  values.insert(values.end(), next, next + losses);
  next += losses;
  values.insert(values.end(), output.loss_weights.begin(), output.loss_weights.end());
  for (const Parameter* parameter : counted) {
    const double norm = *next++;
    values.insert(values.end(),
                  {static_cast<double>(parameter->layer), static_cast<double>(parameter->place), norm * norm});
  }
  return values;
}

StepResult Worker::judge(const Totals& totals, std::int64_t step, const LossScale& scale) const {
  if (!(totals.weight > 0))
    throw run_failed(fmt::format("the weight of step {}'s minibatch is {}", step, totals.weight), "more than 0",
                     "check that the loss returns the number of samples or unmasked tokens");
  StepResult result;
  result.loss = totals.loss_sum / totals.weight;
  result.weight = totals.weight;
  result.loss_scale = scale.scale;
  result.gradient_norm = totals.scaled_norm / (totals.weight * scale.scale);
  result.losses = totals.losses;
  if (std::isfinite(result.loss) && std::isfinite(result.gradient_norm)) return result;
  // A scale of 1 scales nothing: what is not finite then, is not for want of range above.
  if (!loss_scale_state_.defined() || scale.scale <= 1)
    throw run_failed(fmt::format("step {} has loss {} and gradient norm {}", step, result.loss, result.gradient_norm),
                     "finite numbers", "lower the learning rate, clip the gradient, or find it with `check_finite`");
  result.skipped = true;
  return result;
}

// The one division of the gradients, with clipping in the same factor.
double Worker::factor_of(const StepResult& result) const {
  const double factor = unclipped_factor(result.weight, result.loss_scale);
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

// \param keep_sums whether the gradients of the sum stay as they are, for an update that may be made again.
void Worker::apply(double factor, double learning_rate, bool keep_sums) {
  const at::NoGradGuard no_graph;
  const std::vector<at::Tensor> sums = gradients();
  if (sums.empty()) {
    // Counts the update all the same.
  } else if (keep_sums) {
    auto next = at::_foreach_mul(sums, factor);
    auto divided = next.begin();
    for (const Parameter& parameter : parameters_)
      if (parameter.tensor.grad().defined()) parameter.tensor.mutable_grad() = std::move(*divided++);
  } else {
    at::_foreach_mul_(sums, factor);
  }
  optimizer_.update(learning_rate);
}

// The ranks of the last stage know the weights long before the gradients are there.
void Worker::send_loss_weights(const std::vector<double>& weights) {
  const UncountedMemory exchanged;
  const at::Tensor message = at::tensor(weights, at::kDouble);
  for (std::int32_t rank = 0; rank < transport_.ranks(); ++rank)
    if (RankId{rank} != transport_.rank()) transport_.send(RankId{rank}, weights_from(transport_.rank()), {message});
}

// The weight of the whole minibatch.
double Worker::minibatch_weight(const StepOutput& output) {
  const UncountedMemory exchanged;
  std::vector<RankId> holders = plan_.training->placement.holders.back();
  std::sort(holders.begin(), holders.end());
  std::vector<double> weights(static_cast<std::size_t>(training_.microbatches));
  for (const RankId holder : holders) {
    if (holder == transport_.rank()) {
      for (std::size_t microbatch = 0; microbatch < weights.size(); ++microbatch)
        weights[microbatch] += output.loss_weights[microbatch];
      continue;
    }
    const at::Tensor message = transport_.receive(holder, weights_from(holder)).front();
    const std::span<const double> holders_weights = numbers_of<double>(message);
    if (holders_weights.size() != weights.size())
      throw run_failed(fmt::format("{} weights from rank {}", holders_weights.size(), holder.value),
                       fmt::format("one for each of {} microbatches", weights.size()),
                       "start every process of the run with the same penstock");
    for (std::size_t microbatch = 0; microbatch < weights.size(); ++microbatch)
      weights[microbatch] += holders_weights[microbatch];
  }
  return std::accumulate(weights.begin(), weights.end(), 0.0);
}

bool Worker::updates_first() const { return may_take_back() ? update_choice_.goes_first() && last_check_held_ : true; }

// What may have to be taken back is the own weights only; and alone on its pipeline a rank has nobody to wait for.
std::optional<bool> Worker::asked_to_update_first() const {
  const PipelineSettings& settings = plan_.settings;
  if (settings.shard_optimizer || settings.outside_optimizer || transport_.ranks() == 1) return false;
  if (!settings.post_validation && settings.steps_in_flight == 1) return false;
  return settings.post_validation;
}

// From the end of the last step's passes to that of this one's; infinite without room for taking an update back.
double Worker::own_pace() {
  const double now = clock_.now().count;
  const double before = std::exchange(passes_ended_ms_, now);
  if (plan_.settings.post_validation) return 0;
  // How much of a device is free is not known well enough to take it without being asked.
  if (!device_of(plan_, transport_.rank()).is_cpu()) return std::numeric_limits<double>::infinity();
  const Bytes limit = plan_.settings.memory_limit;
  if (may_take_back() && update_choice_.measures() && limit.count > 0) {
    // Weights and state keep their sizes.
    if (!memory_of_check_) memory_of_check_ = memory_of_check();
    if (peak_memory() + *memory_of_check_ > limit) return std::numeric_limits<double>::infinity();
  }
  return before > 0 ? now - before : 0;
}

// What an update that may be taken back keeps until its check: weights and optimizer state, gradients that are not yet
// divided beside those that are, and buffers.
Bytes Worker::memory_of_check() const {
  Bytes memory;
  for (const Parameter& parameter : parameters_) memory += bytes_of(parameter.tensor) + bytes_of(parameter.tensor);
  for (const auto& [name, tensor] : optimizer_.state()) memory += bytes_of(tensor);
  for (const Stage& stage : executor_.stages())
    for (const Layer& layer : stage.layers())
      for (const at::Tensor& buffer : layer.module().buffers())
        if (buffer.defined()) memory += bytes_of(buffer);
  return memory;
}

// Without clipping and a scaled loss, a check that fails ends the run.
bool Worker::may_take_back() const { return plan_.settings.clip_norm > 0 || loss_scale_state_.defined(); }

std::optional<StepResult> Worker::update(const StepOutput& output, const UpdateSettings& settings) {
  UncheckedUpdate update;
  update.step = settings.step;
  update.learning_rate = settings.learning_rate;
  update.loss_scale = loss_scale_;
  {
    const UncountedMemory exchanged;
    update.own_totals = own_totals(output);
  }
  if (!updates_first()) {
    const Totals totals = [&] {
      // What ranks exchange is freed by the last to read it, on whichever thread: it is no rank's memory.
      const UncountedMemory exchanged;
      return sum_totals(all_gather(transport_, update.own_totals), training_.microbatches);
    }();
    update_choice_.saw(totals.pace_ms);
    StepResult result = judge(totals, update.step, loss_scale_);
    last_check_held_ = !result.skipped && factor_of(result) == unclipped_factor(result.weight, result.loss_scale);
    if (!result.skipped) {
      apply(factor_of(result), settings.learning_rate, /*keep_sums=*/false);
      copies_.share_weights();
    }
    finish_update(result.skipped);
    return result;
  }
  {
    const UncountedMemory exchanged;
    send_to_each(transport_, update.own_totals);
  }
  update.factor = unclipped_factor(minibatch_weight(output), loss_scale_.scale);
  if (may_take_back()) {
    for (const Parameter& parameter : parameters_) update.sums.push_back(parameter.tensor.grad());
    optimizer_.keep();
    update.buffers = copied_buffers();
    for (const auto& norm : batch_norms_) update.gathered.push_back(norm->gathered());
  }
  apply(update.factor, settings.learning_rate, may_take_back());
  copies_.share_weights();
  finish_update(/*skipped=*/false);
  unchecked_ = std::move(update);
  return std::nullopt;
}

std::optional<Worker::CheckedUpdate> Worker::check_update() {
  if (!unchecked_) return std::nullopt;
  const UncheckedUpdate update = std::exchange(unchecked_, std::nullopt).value();
  const std::vector<std::vector<double>> by_rank = [&] {
    const UncountedMemory exchanged;
    return receive_from_each(transport_, update.own_totals);
  }();
  const Totals totals = sum_totals(by_rank, training_.microbatches);
  update_choice_.saw(totals.pace_ms);
  CheckedUpdate checked{judge(totals, update.step, update.loss_scale), true};
  checked.stays = !checked.result.skipped && factor_of(checked.result) == update.factor;
  checked.result.updated_first = may_take_back();
  checked.result.taken_back = !checked.stays;
  last_check_held_ = checked.stays;
  if (!checked.stays) take_back(update, checked.result);
  optimizer_.discard_kept();
  return checked;
}

// The update is made as if nothing had been hoped.
void Worker::take_back(const UncheckedUpdate& update, const StepResult& result) {
  check_invariant(may_take_back(), "an update that cannot be taken back");
  optimizer_.take_back();
  {
    const at::NoGradGuard no_graph;
    for (const auto& [buffer, copy] : update.buffers) buffer.copy_(copy);
  }
  for (std::size_t index = 0; index < batch_norms_.size(); ++index)
    batch_norms_[index]->gathered() = update.gathered[index];
  loss_scale_ = update.loss_scale;
  if (!result.skipped) {
    for (std::size_t index = 0; index < parameters_.size(); ++index)
      parameters_[index].tensor.mutable_grad() = update.sums[index];
    apply(factor_of(result), update.learning_rate, /*keep_sums=*/false);
    copies_.share_weights();
  }
  finish_update(result.skipped);
}

std::vector<std::pair<at::Tensor, at::Tensor>> Worker::copied_buffers() const {
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const Stage& stage : executor_.stages())
    for (const Layer& layer : stage.layers())
      for (const at::Tensor& buffer : layer.module().buffers())
        if (buffer.defined()) copies.emplace_back(buffer, buffer.detach().clone());
  return copies;
}

void Worker::finish_update(bool skipped) {
  for (const Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
  for (const auto& norm : batch_norms_) {
    if (skipped)
      norm->forget_minibatch();
    else
      norm->take_minibatch();
  }
  if (!loss_scale_state_.defined()) return;
  loss_scale_.saw(!skipped);
  loss_scale_state_.copy_(at::tensor(
      {loss_scale_.scale, static_cast<double>(loss_scale_.clean_steps), static_cast<double>(optimizer_.updates())},
      at::kDouble));
}

}  // namespace penstock
