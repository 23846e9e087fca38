/// \file
/// The ledger: what a stage holds in memory, and what each of its passes takes and gives back.
///
/// This is the one law of memory. The simulator places these sizes on its clock, the planner adds them up to see which
/// cuts fit, and the search for schedules keeps its caps with them. For one stage:
///
/// | when | what is held |
/// |---|---|
/// | always | parameters and optimizer state (forward only: parameters) |
/// | from the end of the step's first `B` or `W` to the update | gradients; while that pass runs, `gradient_at_peak` |
/// | the same | `kept_gradients`: as many as the tree keeps at its fullest, to be on the safe side |
/// | from the start of an `F` to the end of its `B` or `I` | the activation |
/// | from the end of an `I` to the end of its `W` | the part of the activation that `W` needs |
/// | while a pass runs | its workspace |
/// | while a `B` or an `I` runs | the gradient of the stage's output |
/// | from the end of a pass until it has been sent or used | what the pass hands to a neighbouring stage |
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/cost/cost.h"

namespace penstock {

/// The cap of a rank that has none.
inline constexpr double no_cap = std::numeric_limits<double>::infinity();

/// What a stage does with one microbatch: the `F`, `I`, `W` and `B` of a schedule. `B` stands for `I` and `W` together.
enum class Pass : std::uint8_t { Forward, InputBackward, WeightBackward, Backward };

/// How long the pass takes. A `B` takes as long as `I` and `W` together.
[[nodiscard]] inline Milliseconds duration_of(const StageCost& stage, Pass pass) {
  switch (pass) {
    case Pass::Forward:
      return stage.forward;
    case Pass::InputBackward:
      return stage.input_backward;
    case Pass::WeightBackward:
      return stage.weight_backward;
    case Pass::Backward:
      break;
  }
  return stage.input_backward + stage.weight_backward;
}

/// How long all passes of one microbatch take.
[[nodiscard]] inline Milliseconds duration_of_microbatch(const StageCost& stage) {
  return stage.forward + stage.input_backward + stage.weight_backward;
}

/// What is held while the pass runs, beside activations and boundaries.
[[nodiscard]] inline Bytes workspace_of(const StageCost& stage, Pass pass) {
  switch (pass) {
    case Pass::Forward:
      return stage.forward_workspace;
    case Pass::InputBackward:
      return stage.input_workspace;
    case Pass::WeightBackward:
      return stage.weight_workspace;
    case Pass::Backward:
      break;
  }
  return stage.backward_workspace;
}

/// The part of a microbatch's activation that stays between its `I` and its `W`, to the nearest byte.
[[nodiscard]] inline Bytes activation_for_weights(const StageCost& stage) {
  return {std::llround(static_cast<double>(stage.activation.count) * stage.weight_activation_share)};
}

/// By how much more a stage holds for its microbatches; less where it is negative.
struct ActivationChange {
  Bytes at_start;  ///< when the pass begins
  Bytes at_end;    ///< when it has ended

  friend bool operator==(const ActivationChange&, const ActivationChange&) = default;
};

/// What a pass takes and gives back of activations.
[[nodiscard]] inline ActivationChange activation_change(const StageCost& stage, Pass pass) {
  switch (pass) {
    case Pass::Forward:
      return {stage.activation, {}};
    case Pass::InputBackward:
      return {{}, activation_for_weights(stage) - stage.activation};
    case Pass::WeightBackward:
      return {{}, Bytes{} - activation_for_weights(stage)};
    case Pass::Backward:
      break;
  }
  return {{}, Bytes{} - stage.activation};
}

/// Whether the pass computes gradients of the stage's weights. The first of a step that does takes their memory.
[[nodiscard]] constexpr bool computes_weight_gradients(Pass pass) {
  return pass == Pass::Backward || pass == Pass::WeightBackward;
}

/// What is held for the weights during a whole step: parameters and optimizer state.
[[nodiscard]] inline Bytes memory_of_weights(const StageCost& stage) { return stage.parameter + stage.optimizer; }

/// The same with the gradients, as it is from the stage's first `B` or `W` of a step to the update.
[[nodiscard]] inline Bytes memory_of_weights_with_gradients(const StageCost& stage) {
  return memory_of_weights(stage) + stage.gradient + stage.kept_gradients;
}

/// What passes between a stage and its two neighbours, in one direction, and where the neighbours are.
struct StageBoundaries {
  Bytes input;                          ///< 0 for the first stage
  Bytes output;                         ///< 0 for the last stage
  bool input_is_local = false;          ///< whether the stage before is on the same rank for this microbatch
  bool output_is_local = false;         ///< whether the stage after is
  bool input_returns_gradient = true;   ///< `StageCost::gradient_returns` of the stage before
  bool output_returns_gradient = true;  ///< and of this one

  friend bool operator==(const StageBoundaries&, const StageBoundaries&) = default;
};

/// What a pass changes in the memory of its rank.
struct PassMemory {
  Bytes at_start;  ///< by how much more the rank holds from the start of the pass on
  Bytes at_end;    ///< and from its end on, `message` among it
  /// What the pass made for a neighbour. It is held until the link has it, or, for a stage of the same rank, until that
  /// stage's pass begins, whose `at_start` accounts for that.
  Bytes message;

  friend bool operator==(const PassMemory&, const PassMemory&) = default;
};

/// The change that one pass makes. \param first_gradient whether the pass is the stage's first of the step that
/// computes gradients of its weights. \param forward_only whether no backward follows, so that nothing is kept for one.
[[nodiscard]] PassMemory memory_of_pass(const StageCost& stage, Pass pass, const StageBoundaries& boundaries,
                                        bool first_gradient, bool forward_only = false);

/// How many microbatches of one stage a rank holds at a time.
struct HeldMicrobatches {
  int whole = 0;        ///< after their `F`, before the end of their `B` or `I`
  int for_weights = 0;  ///< between `I` and `W`

  friend bool operator==(const HeldMicrobatches&, const HeldMicrobatches&) = default;
};

/// The activations of so many microbatches, in bytes. A floating-point number, since a search also asks for numbers of
/// microbatches whose activations no machine could hold.
[[nodiscard]] inline double memory_of_activations(const StageCost& stage, const HeldMicrobatches& held) {
  return static_cast<double>(stage.activation.count) * held.whole +
         static_cast<double>(activation_for_weights(stage).count) * held.for_weights;
}

/// An estimate, in bytes, of what a stage takes at its peak, for a stage that has not been played yet: its weights with
/// their gradients, the activations of the fullest of `held`, one boundary on either side, and its largest workspace.
/// Only the simulator knows how many messages wait at the peak, and whether all of this comes together.
[[nodiscard]] double estimated_peak(const StageCost& stage, const std::vector<HeldMicrobatches>& held,
                                    const StageBoundaries& boundaries);

}  // namespace penstock
