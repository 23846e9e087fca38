/// \file
/// The executor: a small machine that interprets one rank's verified actions. It knows no schedule by name.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/types.h"
#include "penstock/exec/boundary.h"
#include "penstock/exec/device.h"
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
  bool last_of_gradients = false;  ///< after it the weights' gradients of its stage are those of all its microbatches
  bool last_of_losses = false;     ///< after it the rank knows the losses of all its microbatches
};

/// The actions of one rank, ready to be interpreted.
struct Program {
  int microbatches = 0;
  std::vector<StageId> stages;  ///< that the rank holds, ascending; `Instruction::local_stage` counts in it
  std::vector<Instruction> instructions;
};

/// Looks up peers and neighbours. \param lowered a schedule with its sends and receives.
[[nodiscard]] Program compile(const VerifiedSchedule& lowered, RankId rank);

/// The forward passes that a rank can do before any rank does a backward: its program's beginning. None of them changes
/// a gradient, so that all ranks can forget their leads together and begin again with other weights.
struct Lead {
  std::size_t instructions = 0;     ///< that it takes from the program
  std::vector<Instruction> unread;  ///< receives after the lead, of messages that are sent in the leads of other ranks
};

/// The leads of all ranks, by rank. \param lowered a schedule with its sends and receives.
[[nodiscard]] std::vector<Lead> find_leads(const VerifiedSchedule& lowered);

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
/// What is empty is not called.
struct GradientReduction {
  /// After each forward, also those on weights that may be taken back.
  std::function<void(std::size_t local_stage, MicrobatchId)> on_forward;
  std::function<void(std::size_t local_stage)> on_gradient;  ///< after each B or W, before `on_final`
  /// After the stage's last B or W. Not called for a stage that does none.
  std::function<void(std::size_t local_stage)> on_final;
  std::function<void()> advance;  ///< between two actions

  [[nodiscard]] bool is_empty() const { return !on_forward && !on_gradient && !on_final && !advance; }
};

/// Lets a rank begin a step on weights that may be taken back.
struct Confirmation {
  const Lead* lead = nullptr;  ///< of this rank's program
  /// Called once, on the rank's thread, after the lead or what failed within it: whether the weights stay. If not, the
  /// step begins anew, with the settings as the call leaves them. Empty: they stay.
  std::function<bool(StepSettings&)> weights_stay;
};

/// What a step calls on the rank's thread while it runs, and what it may be told then.
struct StepHooks {
  GradientReduction reduction = {};
  Confirmation confirmation = {};
  /// On ranks of the last stage, after the last of their losses, with the weights of the microbatches, 0 for those of
  /// another rank. Does not wait. Empty: nobody asks.
  std::function<void(const std::vector<double>& weights)> on_loss_weights = {};
};

/// What a rank has to say after it.
struct StepOutput {
  /// [microbatches] in float64 on the last stage's device, 0 for those of another rank; undefined on ranks without it.
  at::Tensor loss_sums;
  std::vector<double> loss_weights;  ///< by microbatch, as `loss_sums`
  std::vector<Tensors> outputs;      ///< by microbatch, where they were asked for
  std::vector<Event> events;         ///< on the clock's own zero, after `RankExecutor::resolve_times`
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
  /// the layer cannot be supported, RunFailed for everything else; Aborted where another rank did. \param hooks what
  /// the reduction allocates or frees does not count as memory of the microbatches.
  [[nodiscard]] StepOutput run(const Program& program, const StepInput& input, const StepHooks& hooks = {});

  /// Gives the events of the last run their times. On a device other than the host they have none before; to be called
  /// when the host has waited for what the program has computed, so that it need not wait for this alone.
  void resolve_times(StepOutput& output) { stamps_.resolve(output.events); }
  /// Finds anew where the device's time stands on the clock, and waits for the device to do so.
  void align_clock() { stamps_.align(); }

 private:
  void begin(const Program& program, StepSettings settings);
  void hold_nothing(const StepSettings& next);
  [[nodiscard]] std::unordered_set<const void*> storages_of_layers() const;
  void keep_own_memory(Tensors& message);
  [[nodiscard]] StepOutput empty_output(const Program& program, const StepInput& input) const;
  [[nodiscard]] StepOutput interpret_all(const Program& program, const StepInput& input, const StepHooks& hooks);
  [[nodiscard]] bool run_lead(const Program& program, const StepInput& input, const StepHooks& hooks,
                              StepOutput& output);
  void leave_lead(const Program& program, const Lead& lead, std::size_t done, bool failed);
  void perform(const Instruction& instruction, const StepInput& input, StepOutput& output);
  void reduce(const Instruction& instruction, const GradientReduction& reduction);
  void interpret(const Instruction& instruction, const StepInput& input, StepOutput& output);
  [[nodiscard]] Error named(const Instruction& instruction, const std::string& message,
                            ErrorKind kind = ErrorKind::RunFailed) const;
  [[nodiscard]] std::vector<double> loss_weights() const;
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
  MemoryMeter& memory_;
  BoundaryDtype boundary_dtype_;
  at::Device device_;  // of all its stages
  Stamps stamps_;
  std::vector<Boundaries> boundaries_;  // by local stage
  // Storages of weights and buffers, from the step's first message on: a layer may put other buffers in their places.
  std::optional<std::unordered_set<const void*>> own_memory_;
  Bytes standing_;                // held before the step, and what a reduction has made more or less of it
  Bytes in_transit_;              // messages that wait to be sent or used
  std::vector<Bytes> gradients_;  // of the weights, by local stage
};

}  // namespace penstock
