#include "penstock/exec/microbatch.h"

#include <fmt/format.h>
#include <utility>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

// The dimension that is split, counted from the front.
std::int64_t dimension_of(const Argument& argument) {
  const std::int64_t dimensions = argument.tensor.dim();
  const std::int64_t asked = *argument.split_dimension;
  const std::int64_t dimension = asked < 0 ? asked + dimensions : asked;
  if (dimension < 0 || dimension >= dimensions)
    throw bad_input(fmt::format("dimension {} of a tensor of {} dimensions to be split", asked, dimensions),
                    "a dimension of the tensor", "correct split_dimension, or leave it out to give all to every one");
  return dimension;
}

// The samples of the first argument that is split; the others have to agree.
void check_samples(const Argument& argument, std::optional<std::int64_t>& samples, int microbatches) {
  if (!argument.split_dimension || !argument.tensor.defined()) return;
  const std::int64_t size = argument.tensor.size(dimension_of(argument));
  if (size < microbatches)
    throw bad_input(fmt::format("a minibatch of {} samples for {} microbatches", size, microbatches),
                    "at least one sample a microbatch", "lower `microbatches` or raise `batch`");
  if (samples && *samples != size)
    throw bad_input(fmt::format("tensors of {} and of {} samples in one minibatch", *samples, size), "as many of each",
                    "check the dataset, or the dimensions that are split");
  samples = size;
}

}  // namespace

std::vector<Microbatch> split_minibatch(const Minibatch& minibatch, int microbatches) {
  if (microbatches < 1)
    throw bad_input(counted(microbatches, "microbatch"), "at least 1", "raise the number of microbatches");
  std::optional<std::int64_t> samples;
  for (const auto* side : {&minibatch.inputs, &minibatch.targets})
    for (const Argument& argument : *side) check_samples(argument, samples, microbatches);
  std::vector<Microbatch> parts(static_cast<std::size_t>(microbatches));
  const auto distribute = [&](const std::vector<Argument>& arguments, Tensors Microbatch::* side) {
    for (const Argument& argument : arguments) {
      if (!argument.split_dimension || !argument.tensor.defined()) {
        for (Microbatch& part : parts) (part.*side).push_back(argument.tensor);
        continue;
      }
      std::vector<at::Tensor> pieces = argument.tensor.tensor_split(microbatches, dimension_of(argument));
      for (std::size_t index = 0; index < parts.size(); ++index)
        (parts[index].*side).push_back(std::move(pieces[index]));
    }
  };
  distribute(minibatch.inputs, &Microbatch::inputs);
  distribute(minibatch.targets, &Microbatch::targets);
  return parts;
}

Tensors merge_outputs(const std::vector<Tensors>& by_microbatch, std::int64_t dimension) {
  Tensors merged;
  if (by_microbatch.empty()) return merged;
  for (std::size_t output = 0; output < by_microbatch.front().size(); ++output) {
    std::vector<at::Tensor> parts;
    for (const Tensors& outputs : by_microbatch) {
      if (outputs.size() != by_microbatch.front().size())
        throw bad_input(
            fmt::format("{} outputs of one microbatch and {} of another", by_microbatch.front().size(), outputs.size()),
            "as many of each", "take the outputs by microbatch instead");
      if (outputs[output].defined()) parts.push_back(outputs[output]);
    }
    try {
      merged.push_back(parts.empty() ? at::Tensor() : at::cat(parts, dimension));
    } catch (const c10::Error&) {
      throw bad_input(fmt::format("output {} has shapes that differ in more than dimension {}", output, dimension),
                      "microbatches of the same shape but for that dimension",
                      "take the outputs by microbatch instead");
    }
  }
  return merged;
}

}  // namespace penstock
