#include "penstock/exec/rank.h"

#include <fmt/format.h>
#include <utility>

#include <c10/util/Exception.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include "penstock/base/error.h"
#include "penstock/exec/counted_messages.h"
#include "penstock/exec/device.h"
#include "penstock/nn/tensor_bytes.h"

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

// The gradient of one of the network's own inputs goes where libtorch would bring it: to the tensor that the caller has
// given, and what that was computed from.
void pass_to_caller(const Tensors& inputs, Tensors gradients) {
  for (std::size_t index = 0; index < inputs.size(); ++index) {
    const at::Tensor& input = inputs[index];
    if (!input.defined() || !input.requires_grad() || !gradients.at(index).defined()) continue;
    const UncountedMemory of_caller;
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
      clock_(clock),
      memory_(memory),
      boundary_dtype_(boundary_dtype),
      device_(stages_.empty() ? at::Device(at::kCPU) : stages_.front().device()),
      boundaries_(stages_.size()) {}

void RankExecutor::begin(const Program& program, const StepInput& input) {
  StepSettings settings = input.settings;
  settings.microbatches = program.microbatches;
  hold_nothing(settings);
  standing_ = held();
  in_transit_ = {};
  gradients_.assign(stages_.size(), {});
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

StepOutput RankExecutor::run(const Program& program, const StepInput& input, const GradientReduction& reduction) {
  begin(program, input);
  try {
    StepOutput output = interpret_all(program, input, reduction);
    for (Stage& stage : stages_) stage.end_evaluation();
    return output;
  } catch (...) {
    // While the caller still holds the inputs: this thread's meter knows nothing of their memory.
    StepSettings nothing = input.settings;
    nothing.microbatches = 0;
    nothing.sequences = StepSettings::Sequences::Whole;
    hold_nothing(nothing);
    throw;
  }
}

StepOutput RankExecutor::interpret_all(const Program& program, const StepInput& input,
                                       const GradientReduction& reduction) {
  StepOutput output;
  output.sent.resize(stages_.size());
  output.events.reserve(program.instructions.size());
  output.receipts.reserve(program.instructions.size());
  output.activations.reserve(program.instructions.size());
  if (input.keep_outputs) output.outputs.resize(static_cast<std::size_t>(program.microbatches));
  Stamps stamps(device_, clock_);
  for (const Instruction& instruction : program.instructions) {
    const Milliseconds start = stamps.now();
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
      throw named(instruction, first_line(error.what()));
    } catch (...) {
      throw named(instruction, "it threw something that is no std::exception");
    }
    output.events.push_back({instruction.action, start, stamps.now()});
    output.activations.push_back(held_for_microbatches());
    if (reduction.advance) reduce(instruction, reduction);
  }
  stamps.resolve(output.events);
  collect_losses(input, output);
  for (const Tensors& outputs : output.outputs) MemoryMeter::hand_over(outputs);
  return output;
}

void RankExecutor::reduce(const Instruction& instruction, const GradientReduction& reduction) {
  const Bytes before = held();
  if (instruction.last_of_gradients && reduction.on_final)
    reduction.on_final(static_cast<std::size_t>(instruction.local_stage));
  reduction.advance();
  standing_ += held() - before;
}

Error RankExecutor::named(const Instruction& instruction, const std::string& message, ErrorKind kind) const {
  const Action& action = instruction.action;
  const auto layer = stages_[static_cast<std::size_t>(instruction.local_stage)].current_layer();
  return {kind, fmt::format("rank {}, stage {}, microbatch {}, action {}{}: {}", transport_.rank().value,
                            action.stage.value, action.microbatch.value, to_string(action),
                            layer ? fmt::format(", layer {}", *layer) : "", message)};
}

void RankExecutor::collect_losses(const StepInput& input, StepOutput& output) const {
  if (!input.settings.with_loss) return;
  for (const Stage& stage : stages_) {
    if (!stage.has_loss()) continue;
    for (std::size_t microbatch = 0; microbatch < input.microbatches.size(); ++microbatch) {
      const Loss& loss = stage.loss({static_cast<std::int32_t>(microbatch)});
      // Of several holders of the last stage each has seen a part of the microbatches.
      output.loss_sums.push_back(loss.sum.defined() ? loss.sum.item<double>() : 0);
      output.loss_weights.push_back(loss.weight);
    }
  }
}

// On a device, what all ranks hold that share it.
Bytes RankExecutor::held() const {
  if (device_.is_cpu()) return memory_.held();
  return device_memory(device_).value_or(DeviceMemory{}).held;
}

Bytes RankExecutor::held_for_microbatches() const {
  Bytes held = this->held() - standing_ - in_transit_;
  for (const Bytes& of_stage : gradients_) held = held - of_stage;
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
  if (boundary_dtype_ == BoundaryDtype::BFloat16) message = narrowed(std::move(message));
  output.sent[static_cast<std::size_t>(instruction.local_stage)] += bytes_of(message);
  const Tag tag{forward ? MessageKind::Activation : MessageKind::Gradient, action.stage.value + (forward ? 1 : -1),
                action.microbatch.value};
  send_counted(transport_, instruction.peer, tag, std::move(message));
}

void RankExecutor::receive(const Instruction& instruction, StepOutput& output) {
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  const Action& action = instruction.action;
  const bool forward = action.kind == ActionKind::ReceiveForward;
  const Tag tag{forward ? MessageKind::Activation : MessageKind::Gradient, action.stage.value, action.microbatch.value};
  Tensors message = receive_counted(transport_, memory_, instruction.peer, tag);
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
