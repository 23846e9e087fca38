/// \file
/// How a minibatch becomes microbatches, and outputs become a minibatch's again.
///
///     const auto parts = penstock::split_minibatch(penstock::Minibatch{{{inputs}}, {{targets}}}, 8);
///     const penstock::StepResult result = pipeline.step(parts, {.step = 0, .learning_rate = 1e-3});
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "penstock/nn/layer.h"

namespace penstock {

/// What one pass through the stages works on. Tensors are shared, never written.
struct Microbatch {
  Tensors inputs;   ///< of the first layer
  Tensors targets;  ///< of the loss, where it needs any
};

/// Whether layers remember, in evaluation, what they have seen of each microbatch, and go on from it.
enum class Sequences : std::uint8_t {
  Whole,     ///< they see whole sequences, and remember nothing
  Begin,     ///< they remember what they see
  Continue,  ///< they go on from it, and see only what is new
};

/// One tensor of a minibatch.
struct Argument {
  at::Tensor tensor;
  /// The dimension that is divided among the microbatches, counted from the back if it is negative; none: every
  /// microbatch gets the whole tensor, such as a mask or a scale that holds for all samples.
  std::optional<std::int64_t> split_dimension = 0;
};

/// A minibatch before it is cut.
struct Minibatch {
  std::vector<Argument> inputs;
  std::vector<Argument> targets;
};

/// Cuts a minibatch into views of its tensors, of sizes that differ by at most one, the larger ones first. Where a
/// minibatch arrives in parts already, or its parts differ in shape, make the vector of microbatches by hand instead.
/// \throws Error (BadInput) for fewer samples than microbatches, tensors that differ in the number of samples, or a
/// dimension that does not exist.
[[nodiscard]] std::vector<Microbatch> split_minibatch(const Minibatch& minibatch, int microbatches);

/// Joins the outputs of microbatches along `dimension`: output by output, in the order of the microbatches. An output
/// that is optional and absent in all of them stays absent. \throws Error (BadInput) where they differ in number, or
/// in another dimension.
[[nodiscard]] Tensors merge_outputs(const std::vector<Tensors>& by_microbatch, std::int64_t dimension = 0);

}  // namespace penstock
