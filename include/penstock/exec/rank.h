/// \file
/// The executor: a small machine that interprets one rank's verified actions. It knows no schedule by name.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "penstock/base/clock.h"
#include "penstock/base/error.h"
#include "penstock/exec/boundary.h"
#include "penstock/exec/memory.h"
#include "penstock/exec/stage.h"
#include "penstock/schedule/verify.h"
#include "penstock/timeline/timeline.h"
#include "penstock/transport/transport.h"

namespace penstock {

/// One action of a rank with everything looked up beforehand.
struct Instruction {
  Action action;
  std::int32_t local_stage = 0;    ///< which of the rank's stages
  RankId peer;                     ///< of a send or receive
  std::int32_t local_next = -1;    ///< the local stage that takes the result, or −1 where a send does
  bool last_of_gradients = false;  ///< behind it the weights' gradients of its stage are those of all its microbatches
};

/// The actions of one rank, ready to be interpreted.
struct Program {
  int microbatches = 0;
  std::vector<StageId> stages;  ///< that the rank holds, ascending; `Instruction::local_stage` counts in it
  std::vector<Instruction> instructions;
};

/// Looks up peers and neighbours. \param lowered a schedule with its sends and receives.
[[nodiscard]] Program compile(const VerifiedSchedule& lowered, RankId rank);

/// What a rank is given for one step.
struct StepInput {
  StepSettings settings;  ///< `microbatches` is the program's
  std::vector<Microbatch> microbatches;
  bool keep_outputs = false;  ///< whether the last stage's outputs are returned
};

/// What an event received.
struct Receipt {
  RankId from{-1};       ///< −1 where the event is no receive
  Bytes bytes;           ///< of the tensors, as they travelled
  Milliseconds arrived;  ///< when the message had come, perhaps before it was waited for

  friend bool operator==(const Receipt&, const Receipt&) = default;
};

/// Takes gradients away, or brings others, while the program still runs. Called on the rank's thread; does not wait.
struct GradientReduction {
  /// After the stage's last B or W. Not called for a stage that does none. Empty: nobody asks.
  std::function<void(std::size_t local_stage)> on_final;
  std::function<void()> advance;  ///< between two actions. Empty: there is nothing to do.
};

/// What a rank has to say after it.
struct StepOutput {
  std::vector<double> loss_sums;     ///< by microbatch, 0 for those of another rank; on ranks of the last stage only
  std::vector<double> loss_weights;  ///< by microbatch
  std::vector<Tensors> outputs;      ///< by microbatch, where they were asked for
  std::vector<Event> events;         ///< on the clock's own zero
  std::vector<Receipt> receipts;     ///< by event
  /// What the rank holds after each event for the microbatches that are under way: neither what it held before the
  /// step, nor the weights' gradients, nor messages that wait to be sent or used.
  std::vector<Bytes> activations;
  std::vector<Bytes> sent;  ///< to other ranks, by the stages that the rank holds
};

/// Interprets programs on the stages of one rank. Belongs to that rank's thread.
class RankExecutor {
 public:
  /// \param stages those that the rank holds, ascending. `transport`, `clock` and `memory`, which counts this thread's,
  /// must outlive the executor. `boundary_dtype` must be the same on all ranks.
  RankExecutor(std::vector<Stage> stages, Transport& transport, const Clock& clock, MemoryMeter& memory,
               BoundaryDtype boundary_dtype = BoundaryDtype::Same);

  [[nodiscard]] std::vector<Stage>& stages() { return stages_; }
  [[nodiscard]] const std::vector<Stage>& stages() const { return stages_; }

  /// Runs all instructions. \throws Error that names stage, microbatch and action where a layer throws: BadInput where
  /// the layer cannot be supported, RunFailed for everything else; Aborted where another rank did. \param reduction
  /// what it allocates or frees does not count as memory of the microbatches.
  [[nodiscard]] StepOutput run(const Program& program, const StepInput& input, const GradientReduction& reduction = {});

 private:
  void begin(const Program& program, const StepInput& input);
  void hold_nothing(const StepSettings& next);
  [[nodiscard]] StepOutput interpret_all(const Program& program, const StepInput& input,
                                         const GradientReduction& reduction);
  void reduce(const Instruction& instruction, const GradientReduction& reduction);
  void interpret(const Instruction& instruction, const StepInput& input, StepOutput& output);
  [[nodiscard]] Error named(const Instruction& instruction, const std::string& message,
                            ErrorKind kind = ErrorKind::RunFailed) const;
  void collect_losses(const StepInput& input, StepOutput& output) const;
  [[nodiscard]] Bytes held() const;
  [[nodiscard]] Bytes held_for_microbatches() const;
  [[nodiscard]] Bytes held_in(const Tensors& tensors) const;
  void forward(const Instruction& instruction, const StepInput& input, StepOutput& output);
  void backward(const Instruction& instruction, const StepInput& input);
  void count_gradients(const Instruction& instruction);
  void send(const Instruction& instruction, StepOutput& output);
  void receive(const Instruction& instruction, StepOutput& output);

  // What has arrived at a stage and what is to leave it, by microbatch.
  struct Boundaries {
    std::vector<Tensors> activations;
    std::vector<Tensors> gradients;
    std::vector<Tensors> leaving_activations;
    std::vector<Tensors> leaving_gradients;
  };

  std::vector<Stage> stages_;
  Transport& transport_;
  const Clock& clock_;
  MemoryMeter& memory_;
  BoundaryDtype boundary_dtype_;
  at::Device device_;                   // of all its stages
  std::vector<Boundaries> boundaries_;  // by local stage
  Bytes standing_;                      // held before the step, and what a reduction has made more or less of it
  Bytes in_transit_;                    // messages that wait to be sent or used
  std::vector<Bytes> gradients_;        // of the weights, by local stage
};

}  // namespace penstock
