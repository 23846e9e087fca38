#include "penstock/exec/rank.h"

#include <fmt/format.h>
#include <utility>

#include <c10/util/Exception.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

Bytes size_of(const Tensors& tensors) {
  Bytes total;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) total += Bytes{static_cast<std::int64_t>(tensor.nbytes())};
  return total;
}

// Only the first line: libtorch appends a backtrace.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

Error named(const Action& action, RankId rank, const std::string& message) {
  return {ErrorKind::RunFailed, fmt::format("rank {}, stage {}, microbatch {}, action {}: {}", rank.value,
                                            action.stage.value, action.microbatch.value, to_string(action), message)};
}

}  // namespace

RankExecutor::RankExecutor(std::vector<Stage> stages, Transport& transport, const Clock& clock)
    : stages_(std::move(stages)), transport_(transport), clock_(clock), boundaries_(stages_.size()) {}

StepOutput RankExecutor::run(const Program& program, const StepInput& input) {
  for (Stage& stage : stages_) stage.begin(input.step, program.microbatches, input.training);
  const auto count = static_cast<std::size_t>(program.microbatches);
  for (Boundaries& boundaries : boundaries_) {
    for (auto* side : {&boundaries.activations, &boundaries.gradients, &boundaries.leaving_activations,
                       &boundaries.leaving_gradients}) {
      side->clear();
      side->resize(count);
    }
  }
  StepOutput output;
  output.sent.resize(stages_.size());
  output.events.reserve(program.instructions.size());
  if (input.keep_outputs) output.outputs.resize(count);
  for (const Instruction& instruction : program.instructions) {
    const Milliseconds start = clock_.now();
    try {
      interpret(instruction, input, output);
    } catch (const Aborted&) {
      throw;
    } catch (const c10::Error& error) {
      throw named(instruction.action, transport_.rank(), first_line(error.what_without_backtrace()));
    } catch (const std::exception& error) {
      throw named(instruction.action, transport_.rank(), first_line(error.what()));
    }
    output.events.push_back({instruction.action, start, clock_.now()});
  }
  for (const Stage& stage : stages_) {
    if (!stage.has_loss() || input.targets.empty()) continue;
    for (std::int32_t microbatch = 0; microbatch < program.microbatches; ++microbatch) {
      const Loss& loss = stage.loss({microbatch});
      // Of two holders of the last stage each has seen a part of the microbatches.
      output.loss_sums.push_back(loss.sum.defined() ? loss.sum.to(at::kDouble).item<double>() : 0);
      output.loss_weights.push_back(loss.weight);
    }
  }
  return output;
}

void RankExecutor::interpret(const Instruction& instruction, const StepInput& input, StepOutput& output) {
  switch (instruction.action.kind) {
    case ActionKind::Forward:
      return forward(instruction, input, output);
    case ActionKind::Backward:
    case ActionKind::InputBackward:
      return backward(instruction);
    case ActionKind::WeightBackward:
      return stages_[static_cast<std::size_t>(instruction.local_stage)].weight_backward(instruction.action.microbatch);
    case ActionKind::SendForward:
    case ActionKind::SendBackward:
      return send(instruction, output);
    case ActionKind::ReceiveForward:
    case ActionKind::ReceiveBackward:
      return receive(instruction);
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
    inputs = input.inputs.at(microbatch);
    for (at::Tensor& tensor : inputs) tensor = tensor.to(stage.device());
  } else {
    inputs = std::move(boundaries_[local].activations[microbatch]);
  }
  at::Tensor target;
  if (stage.has_loss() && !input.targets.empty()) target = input.targets.at(microbatch).to(stage.device());
  Tensors outputs = stage.forward(instruction.action.microbatch, std::move(inputs), target);
  if (stage.has_loss()) {
    if (input.keep_outputs) output.outputs[microbatch] = std::move(outputs);
  } else if (instruction.local_next >= 0) {
    const auto next = static_cast<std::size_t>(instruction.local_next);
    for (at::Tensor& tensor : outputs) tensor = tensor.to(stages_[next].device());
    boundaries_[next].activations[microbatch] = std::move(outputs);
  } else {
    boundaries_[local].leaving_activations[microbatch] = std::move(outputs);
  }
}

void RankExecutor::backward(const Instruction& instruction) {
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  const MicrobatchId microbatch = instruction.action.microbatch;
  Tensors arrived = std::move(boundaries_[local].gradients[microbatch.index()]);
  Tensors gradients = instruction.action.kind == ActionKind::Backward
                          ? stages_[local].backward(microbatch, std::move(arrived))
                          : stages_[local].input_backward(microbatch, std::move(arrived));
  if (instruction.action.stage.value == 0) return;
  if (instruction.local_next >= 0) {
    const auto next = static_cast<std::size_t>(instruction.local_next);
    for (at::Tensor& tensor : gradients)
      if (tensor.defined()) tensor = tensor.to(stages_[next].device());
    boundaries_[next].gradients[microbatch.index()] = std::move(gradients);
  } else {
    boundaries_[local].leaving_gradients[microbatch.index()] = std::move(gradients);
  }
}

void RankExecutor::send(const Instruction& instruction, StepOutput& output) {
  Boundaries& boundaries = boundaries_[static_cast<std::size_t>(instruction.local_stage)];
  const Action& action = instruction.action;
  const bool forward = action.kind == ActionKind::SendForward;
  auto& leaving = forward ? boundaries.leaving_activations : boundaries.leaving_gradients;
  Tensors message = std::move(leaving[action.microbatch.index()]);
  const Bytes bytes = size_of(message);
  const Tag tag{forward ? MessageKind::Activation : MessageKind::Gradient, action.stage.value + (forward ? 1 : -1),
                action.microbatch.value};
  transport_.send(instruction.peer, tag, std::move(message));
  memory_.moved(Bytes{-bytes.count});
  output.sent[static_cast<std::size_t>(instruction.local_stage)] += bytes;
}

void RankExecutor::receive(const Instruction& instruction) {
  const auto local = static_cast<std::size_t>(instruction.local_stage);
  const Action& action = instruction.action;
  const bool forward = action.kind == ActionKind::ReceiveForward;
  const Tag tag{forward ? MessageKind::Activation : MessageKind::Gradient, action.stage.value, action.microbatch.value};
  Tensors message = transport_.receive(instruction.peer, tag);
  memory_.moved(size_of(message));
  for (at::Tensor& tensor : message)
    if (tensor.defined()) tensor = tensor.to(stages_[local].device());
  auto& arrived = forward ? boundaries_[local].activations : boundaries_[local].gradients;
  arrived[action.microbatch.index()] = std::move(message);
}

}  // namespace penstock
