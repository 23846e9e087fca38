#include "penstock/cost/ledger.h"

#include <algorithm>

namespace penstock {

PassMemory memory_of_pass(const StageCost& stage, Pass pass, const StageBoundaries& boundaries, bool first_gradient,
                          bool forward_only) {
  const ActivationChange activation = activation_change(stage, pass);
  PassMemory memory{activation.at_start, activation.at_end, {}};
  if (forward_only) memory.at_end = memory.at_end - activation.at_start;
  Bytes while_running = workspace_of(stage, pass);
  if (pass == Pass::Forward) {
    memory.message = boundaries.output;
    // What a stage of the same rank made is a part of the activation from now on.
    if (boundaries.input_is_local) memory.at_start = memory.at_start - boundaries.input;
  } else if (pass != Pass::WeightBackward) {
    if (boundaries.input_returns_gradient) memory.message = boundaries.input;
    const Bytes arrived = boundaries.output_returns_gradient ? boundaries.output : Bytes{};
    while_running += arrived;
    if (boundaries.output_is_local) memory.at_start = memory.at_start - arrived;
  }
  if (first_gradient && computes_weight_gradients(pass)) {
    while_running += stage.gradient_at_peak;
    memory.at_end += stage.gradient + stage.kept_gradients;
  }
  memory.at_start += while_running;
  memory.at_end = memory.at_end + memory.message - while_running;
  return memory;
}

double estimated_peak(const StageCost& stage, const std::vector<HeldMicrobatches>& held,
                      const StageBoundaries& boundaries) {
  double activations = 0;
  for (const HeldMicrobatches& counts : held) activations = std::max(activations, memory_of_activations(stage, counts));
  const Bytes workspace =
      std::max({stage.forward_workspace, stage.backward_workspace, stage.input_workspace, stage.weight_workspace});
  const Bytes others = memory_of_weights_with_gradients(stage) + boundaries.input + boundaries.output + workspace;
  return activations + static_cast<double>(others.count);
}

}  // namespace penstock
