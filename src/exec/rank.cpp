#include "penstock/exec/rank.h"

#include <algorithm>
#include <exception>
#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include "penstock/base/error.h"
#include "penstock/exec/counted_messages.h"
#include "penstock/exec/device.h"
#include "penstock/exec/message_kind.h"
#include "penstock/transport/layout.h"

#include "exec/moved.h"

namespace penstock {
namespace {

// Only the first line: libtorch appends a backtrace.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

Tensors gradients_of(const Stage& stage) {
  Tensors gradients;
  for (const Layer& layer : stage.layers())
    for (const at::Tensor& parameter : layer.module().parameters()) gradients.push_back(parameter.grad());
  return gradients;
}

// Messages bear the number of the stage that takes them.
Tag tag_of(const Action& action) {
  using enum ActionKind;
  const bool forward = action.kind == SendForward || action.kind == ReceiveForward;
  const int next = action.kind == SendForward ? 1 : action.kind == SendBackward ? -1 : 0;
  return {forward ? MessageKind::Activation : MessageKind::Gradient, action.stage.value + next,
          action.microbatch.value};
}

// The gradient of one of the network's own inputs goes where libtorch would bring it: to the tensor that the caller has
// given, and what that was computed from.
void pass_to_caller(const Tensors& inputs, Tensors gradients) {
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    const at::Tensor& input = inputs[index];
    if (!input.defined() || !input.requires_grad() || !gradients.at(index).defined()) continue;
    const UncountedMemory uncounted;
    torch::autograd::Engine::get_default_engine().execute(
        {torch::autograd::impl::gradient_edge(input)}, {moved(gradients[index], input.device())}, /*keep_graph=*/false,
        /*create_graph=*/false, /*accumulate_grad=*/true);
  }
}

}  // namespace

RankExecutor::RankExecutor(std::vector<Stage> stages, Transport& transport, const Clock& clock, MemoryMeter& memory,
                           BoundaryDtype boundary_dtype)
    : stages_(std::move(stages)),
      transport_(transport),
      memory_(memory),
      boundary_dtype_(boundary_dtype),
      device_(stages_.empty() ? at::Device(at::kCPU) : stages_.front().device()),
      stamps_(device_, clock),
      boundaries_(stages_.size()) {}

void RankExecutor::begin(const Program& program, StepSettings settings) {
  settings.microbatches = program.microbatches;
  hold_nothing(settings);
  own_memory_.reset();
  standing_ = held();
  in_transit_ = {};
  gradients_.assign(stages_.size(), {});
}

std::unordered_set<const void*> RankExecutor::storages_of_layers() const {
  std::unordered_set<const void*> storages;
  const auto add = [&](const at::Tensor& tensor) {
    if (tensor.defined() && tensor.has_storage()) storages.insert(tensor.storage().unsafeGetStorageImpl());
  };
  for (const Stage& stage : stages_)
    for (const Layer& layer : stage.layers()) {
      for (const at::Tensor& parameter : layer.module().parameters()) add(parameter);
      for (const at::Tensor& buffer : layer.module().buffers()) add(buffer);
    }
  return storages;
}

// A layer may return a weight, a buffer or a part of one. The update and the next step change it in place, perhaps
// before another rank has done its last pass with it.
void RankExecutor::keep_own_memory(Tensors& message) {
  if (!own_memory_) own_memory_ = storages_of_layers();
  for (at::Tensor& tensor : message) {
    if (!tensor.defined() || !tensor.has_storage() || !own_memory_->contains(tensor.storage().unsafeGetStorageImpl()))
      continue;
    tensor = copy_in_same_layout(tensor, tensor.device()).requires_grad_(tensor.requires_grad());
  }
}

void RankExecutor::hold_nothing(const StepSettings& next) {
  for (Stage& stage : stages_) stage.begin(next);
  for (Boundaries& boundaries : boundaries_) {
    for (auto* side : {&boundaries.activations, &boundaries.gradients, &boundaries.leaving_activations,
                       &boundaries.leaving_gradients}) {
      side->clear();
      side->resize(static_cast<std::size_t>(next.microbatches));
    }
  }
}

StepOutput RankExecutor::run(const Program& program, const StepInput& input, const StepHooks& hooks) {
  begin(program, input.settings);
  try {
    StepOutput output = interpret_all(program, input, hooks);
    for (Stage& stage : stages_) stage.end_evaluation();
    return output;
  } catch (...) {
    // While the caller still holds the inputs: this thread's meter knows nothing of their memory.
    StepSettings nothing = input.settings;
    nothing.microbatches = 0;
    nothing.sequences = Sequences::Whole;
    hold_nothing(nothing);
    throw;
  }
}

StepOutput RankExecutor::empty_output(const Program& program, const StepInput& input) const {
  StepOutput output;
  output.sent.resize(stages_.size());
  output.events.reserve(program.instructions.size());
  output.receipts.reserve(program.instructions.size());
  output.activations.reserve(program.instructions.size());
  if (input.keep_outputs) output.outputs.resize(static_cast<std::size_t>(program.microbatches));
  return output;
}

StepOutput RankExecutor::interpret_all(const Program& program, const StepInput& input, const StepHooks& hooks) {
  stamps_.begin();
  StepOutput output = empty_output(program, input);
  const bool has_lead = static_cast<bool>(hooks.confirmation.weights_stay);
  const bool lead_stays = has_lead && run_lead(program, input, hooks, output);
  if (has_lead && !lead_stays) output = empty_output(program, input);
  const bool tells_losses = hooks.on_loss_weights && std::ranges::any_of(stages_, &Stage::has_loss);
  // If several ranks hold the last stage, one of them may have no microbatch.
  if (tells_losses && std::ranges::none_of(program.instructions, &Instruction::last_of_losses))
    hooks.on_loss_weights(loss_weights());
  const std::size_t behind_lead = lead_stays ? hooks.confirmation.lead->instructions : 0;
  for (std::size_t next = 0; next < program.instructions.size(); ++next) {
    const Instruction& instruction = program.instructions[next];
    if (next >= behind_lead) {
      perform(instruction, input, output);
      reduce(instruction, hooks.reduction);
    }
    if (tells_losses && instruction.last_of_losses) hooks.on_loss_weights(loss_weights());
  }
  collect_losses(input, output);
  for (const Tensors& outputs : output.outputs) MemoryMeter::hand_over(outputs);
  return output;
}

bool RankExecutor::run_lead(const Program& program, const StepInput& input, const StepHooks& hooks,
                            StepOutput& output) {
  const Confirmation& confirmation = hooks.confirmation;
  std::size_t done = 0;
  std::exception_ptr failure;
  try {
    for (; done < confirmation.lead->instructions; ++done) {
      perform(program.instructions[done], input, output);
      reduce(program.instructions[done], hooks.reduction);
    }
  } catch (const Aborted&) {
    throw;
  } catch (...) {
    failure = std::current_exception();  // perhaps only because of the weights
  }
  StepSettings settings = input.settings;
  if (confirmation.weights_stay(settings)) {
    if (failure) std::rethrow_exception(failure);
    return true;
  }
  leave_lead(program, *confirmation.lead, done, failure != nullptr);
  begin(program, settings);
  return false;
}

// Every message of a lead is sent and taken, so that each rank finds only those of its new beginning.
void RankExecutor::leave_lead(const Program& program, const Lead& lead, std::size_t done, bool failed) {
  const auto drop = [&](const Instruction& instruction) {
    static_cast<void>(receive_counted(transport_, memory_, instruction.peer, tag_of(instruction.action)));
  };
  for (std::size_t next = done; next < lead.instructions; ++next) {
    const Instruction& instruction = program.instructions[next];
    // A receive that failed has taken its message.
    if (instruction.action.kind == ActionKind::ReceiveForward && !(failed && next == done)) drop(instruction);
    if (instruction.action.kind == ActionKind::SendForward)
      send_counted(transport_, instruction.peer, tag_of(instruction.action), {});
  }
  for (const Instruction& instruction : lead.unread) drop(instruction);
}

void RankExecutor::perform(const Instruction& instruction, const StepInput& input, StepOutput& output) {
  const Milliseconds start = stamps_.now();
  output.receipts.emplace_back();
  try {
    interpret(instruction, input, output);
  } catch (const Aborted& aborted) {
    // Nobody will say more about this failure than what waits for it.
    if (!aborted.peer_is_lost()) throw;
    throw Aborted(
        named(instruction, fmt::format("waits for rank {}: {}", instruction.peer.value, aborted.what())).what());
  } catch (const c10::Error& error) {
    const std::string message = first_line(error.what_without_backtrace());
    // What one microbatch's backward needs, another's forward has changed meanwhile: no cut can mend that.
    const bool changed = message.find("modified by an inplace operation") != std::string::npos;
    throw named(instruction, message, changed ? ErrorKind::BadInput : ErrorKind::RunFailed);
  } catch (const Error& error) {
    throw named(instruction, first_line(error.what()), error.kind());
  } catch (const std::exception& error) {
    // With what it was: it may be of another language, with a traceback of its own.
    std::throw_with_nested(named(instruction, first_line(error.what())));
  } catch (...) {
    throw named(instruction, "it threw something that is no std::exception");
  }
  output.events.push_back({instruction.action, start, stamps_.now()});
  output.activations.push_back(held_for_microbatches());
}

void RankExecutor::reduce(const Instruction& instruction, const GradientReduction& reduction) {
  if (reduction.is_empty()) return;
  const Bytes before = held();
  const Action& action = instruction.action;
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  if (action.kind == ActionKind::Forward && reduction.on_forward) reduction.on_forward(local, action.microbatch);
  const bool has_gradient = action.kind == ActionKind::Backward || action.kind == ActionKind::WeightBackward;
  if (has_gradient && reduction.on_gradient) reduction.on_gradient(local);
  if (instruction.last_of_gradients && reduction.on_final) reduction.on_final(local);
  if (reduction.advance) reduction.advance();
  standing_ += held() - before;
}

Error RankExecutor::named(const Instruction& instruction, const std::string& message, ErrorKind kind) const {
  const Action& action = instruction.action;
  const auto layer = stages_[static_cast<std::size_t>(instruction.local_stage)].current_layer();
  return {kind, fmt::format("rank {}, stage {}, microbatch {}, action {}{}: {}", transport_.rank().value,
                            action.stage.value, action.microbatch.value, to_string(action),
                            layer ? fmt::format(", layer {}", *layer) : "", message)};
}

std::vector<double> RankExecutor::loss_weights() const {
  std::vector<double> weights;
  for (const Stage& stage : stages_)
    if (stage.has_loss())
      for (std::int32_t microbatch = 0; microbatch < stage.microbatches(); ++microbatch)
        weights.push_back(stage.loss({microbatch}).weight);
  return weights;
}

// In one tensor, so that a device is waited for once. Of several holders of the last stage each has seen a part of the
// microbatches.
void RankExecutor::collect_losses(const StepInput& input, StepOutput& output) const {
  if (!input.settings.with_loss) return;
  const UncountedMemory uncounted;
  for (const Stage& stage : stages_) {
    if (!stage.has_loss()) continue;
    const at::Tensor zero = at::zeros({}, at::TensorOptions(at::kDouble).device(stage.device()));
    Tensors sums;
    for (std::int32_t microbatch = 0; microbatch < stage.microbatches(); ++microbatch) {
      const Loss& loss = stage.loss({microbatch});
      sums.push_back(loss.sum.defined() ? loss.sum.reshape({}).to(at::kDouble) : zero);
    }
    if (!sums.empty()) output.loss_sums = at::stack(sums);
  }
  output.loss_weights = loss_weights();
}

// On a device, what all ranks hold that share it.
Bytes RankExecutor::held() const {
  if (device_.is_cpu()) return memory_.held();
  return device_memory(device_).value_or(DeviceMemory{}).held;
}

Bytes RankExecutor::held_for_microbatches() const {
  Bytes held = this->held() - standing_ - in_transit_;
  for (const Bytes& stage_gradients : gradients_) held = held - stage_gradients;
  return held;
}

Bytes RankExecutor::held_in(const Tensors& tensors) const {
  return device_.is_cpu() ? memory_.held_in(tensors) : bytes_of(tensors);
}

void RankExecutor::interpret(const Instruction& instruction, const StepInput& input, StepOutput& output) {
  switch (instruction.action.kind) {
    case ActionKind::Forward:
      return forward(instruction, input, output);
    case ActionKind::Backward:
    case ActionKind::InputBackward:
      return backward(instruction, input);
    case ActionKind::WeightBackward:
      stages_[static_cast<std::size_t>(instruction.local_stage)].weight_backward(instruction.action.microbatch);
      return count_gradients(instruction);
    case ActionKind::SendForward:
    case ActionKind::SendBackward:
      return send(instruction, output);
    case ActionKind::ReceiveForward:
    case ActionKind::ReceiveBackward:
      return receive(instruction, output);
    case ActionKind::Unshard:
    case ActionKind::Reshard:
    case ActionKind::ReduceGradient:
    case ActionKind::Idle:
      return;  // Lowering leaves them out.
  }
}

void RankExecutor::forward(const Instruction& instruction, const StepInput& input, StepOutput& output) {
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  const std::size_t microbatch = instruction.action.microbatch.index();
  Stage& stage = stages_[local];
  Tensors inputs;
  if (instruction.action.stage.value == 0) {
    for (const at::Tensor& tensor : input.microbatches.at(microbatch).inputs) {
      inputs.push_back(tensor.defined() ? moved(tensor.detach(), stage.device()) : tensor);
      if (tensor.defined() && tensor.requires_grad()) inputs.back().requires_grad_();
    }
  } else {
    inputs = std::move(boundaries_[local].activations[microbatch]);
    in_transit_ = in_transit_ - held_in(inputs);
  }
  Tensors targets;
  if (stage.has_loss())
    for (const at::Tensor& tensor : input.microbatches.at(microbatch).targets)
      targets.push_back(moved(tensor, stage.device()));
  Tensors outputs = stage.forward(instruction.action.microbatch, std::move(inputs), targets);
  if (stage.has_loss()) {
    if (!input.keep_outputs) return;
    for (at::Tensor& tensor : outputs)
      if (tensor.defined() && tensor.requires_grad()) tensor = tensor.detach();
    output.outputs[microbatch] = std::move(outputs);
  } else if (instruction.local_next >= 0) {
    const auto next = static_cast<std::size_t>(instruction.local_next);
    in_transit_ += held_in(outputs);
    for (at::Tensor& tensor : outputs) tensor = moved(tensor, stages_[next].device());
    boundaries_[next].activations[microbatch] = std::move(outputs);
  } else {
    in_transit_ += held_in(outputs);
    boundaries_[local].leaving_activations[microbatch] = std::move(outputs);
  }
}

void RankExecutor::backward(const Instruction& instruction, const StepInput& input) {
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  const MicrobatchId microbatch = instruction.action.microbatch;
  Tensors arrived = std::move(boundaries_[local].gradients[microbatch.index()]);
  in_transit_ = in_transit_ - held_in(arrived);
  Tensors gradients = instruction.action.kind == ActionKind::Backward
                          ? stages_[local].backward(microbatch, std::move(arrived))
                          : stages_[local].input_backward(microbatch, std::move(arrived));
  if (instruction.action.kind == ActionKind::Backward) count_gradients(instruction);
  if (instruction.action.stage.value == 0)
    return pass_to_caller(input.microbatches.at(microbatch.index()).inputs, std::move(gradients));
  in_transit_ += held_in(gradients);
  if (instruction.local_next >= 0) {
    const auto next = static_cast<std::size_t>(instruction.local_next);
    for (at::Tensor& tensor : gradients) tensor = moved(tensor, stages_[next].device());
    boundaries_[next].gradients[microbatch.index()] = std::move(gradients);
  } else {
    boundaries_[local].leaving_gradients[microbatch.index()] = std::move(gradients);
  }
}

// They appear with the first microbatch of a step and stay until the update.
void RankExecutor::count_gradients(const Instruction& instruction) {
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  if (gradients_[local].count == 0) gradients_[local] = held_in(gradients_of(stages_[local]));
}

void RankExecutor::send(const Instruction& instruction, StepOutput& output) {
  Boundaries& boundaries = boundaries_[static_cast<std::size_t>(instruction.local_stage)];
  const Action& action = instruction.action;
  const bool forward = action.kind == ActionKind::SendForward;
  auto& leaving = forward ? boundaries.leaving_activations : boundaries.leaving_gradients;
  Tensors message = std::move(leaving[action.microbatch.index()]);
  in_transit_ = in_transit_ - held_in(message);
  if (forward && message.empty())
    throw run_failed("the stage returned no tensor", "at least one for the next stage",
                     "let its last layer return what the next one needs");
  keep_own_memory(message);
  if (boundary_dtype_ == BoundaryDtype::BFloat16) message = narrowed(std::move(message));
  output.sent[static_cast<std::size_t>(instruction.local_stage)] += bytes_of(message);
  send_counted(transport_, instruction.peer, tag_of(action), std::move(message));
}

void RankExecutor::receive(const Instruction& instruction, StepOutput& output) {
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  const Action& action = instruction.action;
  const bool forward = action.kind == ActionKind::ReceiveForward;
  Tensors message = receive_counted(transport_, memory_, instruction.peer, tag_of(action));
  if (message.empty())
    throw run_failed("the stage before has failed on weights that were taken back", "weights that stay",
                     "this is said to nobody");
  output.receipts.back() = {instruction.peer, bytes_of(message), transport_.last_arrival()};
  if (boundary_dtype_ == BoundaryDtype::BFloat16)
    message = widened(std::move(message), stages_[local].device());
  else
    for (at::Tensor& tensor : message) tensor = moved(tensor, stages_[local].device());
  in_transit_ += held_in(message);
  auto& arrived = forward ? boundaries_[local].activations : boundaries_[local].gradients;
  arrived[action.microbatch.index()] = std::move(message);
}

}  // namespace penstock
