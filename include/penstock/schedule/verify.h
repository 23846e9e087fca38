/// \file
/// Schedules as data, and their proof. A schedule lists for each rank its actions in order. Generators return one,
/// files hold one, the simulator plays one and the executor interprets one; nothing else about a pipeline's order
/// exists anywhere. Nothing runs unverified: executor and simulator take a `VerifiedSchedule`, and only `verify` makes
/// one. `lower` adds what is sent and received.
///
///     const penstock::VerifiedSchedule schedule = penstock::verify(penstock::make_schedule("zb-v", 4, 8));
///     std::cout << penstock::to_csv(penstock::lower(schedule).get());
///
/// The text form is the CSV of torch.distributed.pipelining (PyTorch 2.13), so that schedules travel in both
/// directions: a row a rank, a cell an action, `2F0` for the forward of stage 2 on microbatch 0; `B`, `I`, `W`,
/// `SEND_F`, `RECV_F`, `SEND_B` and `RECV_B` alike; `2UNSHARD`, `2RESHARD` and `2REDUCE_GRAD` for the whole of stage 2;
/// an empty cell for a step in which the rank waits; `(0F1;1B2)OVERLAP_F_B` for two actions that run together.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/base/types.h"

namespace penstock {

/// What a rank does in one step. The letters are those of the text form.
enum class ActionKind : std::uint8_t {
  Forward,          ///< `F`: the stage's forward pass.
  Backward,         ///< `B`: the whole backward pass, input and weight gradients together.
  InputBackward,    ///< `I`: only the gradient of the stage's input (arXiv 2401.10241, section 2).
  WeightBackward,   ///< `W`: only the gradients of the stage's weights, after the `I` of the same microbatch.
  SendForward,      ///< `SEND_F`: the stage's output goes to the rank of the next stage. Does not block.
  ReceiveForward,   ///< `RECV_F`: the stage's input, the output of the stage before it, arrives.
  SendBackward,     ///< `SEND_B`: the gradient of the stage's input goes to the rank of the stage before it.
  ReceiveBackward,  ///< `RECV_B`: the gradient of the stage's output arrives from the next stage.
  Unshard,          ///< `UNSHARD`: PyTorch's FSDP gathers the stage's parameters. Of a stage, not of a microbatch.
  Reshard,          ///< `RESHARD`: PyTorch's FSDP frees them again. Of a stage, not of a microbatch.
  ReduceGradient,   ///< `REDUCE_GRAD`: the stage's gradients are complete. Of a stage, not of a microbatch.
  Idle,             ///< An empty cell: the rank waits for a step. Of no stage and no microbatch.
};

/// One step of a rank. A send or a receive names the stage on its own side: `1SEND_F0` on one rank meets `2RECV_F0` on
/// another, and `2SEND_B0` meets `1RECV_B0`. What has no stage or no microbatch holds -1 there.
struct Action {
  ActionKind kind = ActionKind::Forward;
  StageId stage;
  MicrobatchId microbatch;
  /// Runs together with the action after it on the same rank, as DualPipe's F&B do: a forward and a backward that both
  /// may begin once the inputs of both are there. An executor that cannot overlap them runs the two in order, which is
  /// as correct.
  bool overlaps_next = false;

  friend auto operator<=>(const Action&, const Action&) = default;
};

/// True for `F`, `B`, `I` and `W`; false for all others.
[[nodiscard]] constexpr bool is_compute(ActionKind kind) { return kind <= ActionKind::WeightBackward; }

/// True for `F`: from its start on the rank holds the microbatch's activation on the stage.
[[nodiscard]] constexpr bool takes_activation(ActionKind kind) { return kind == ActionKind::Forward; }

/// True for `B` and `W`: at its end the rank holds nothing of the activation any more.
[[nodiscard]] constexpr bool frees_activation(ActionKind kind) {
  return kind == ActionKind::Backward || kind == ActionKind::WeightBackward;
}

/// True for the four sends and receives.
[[nodiscard]] constexpr bool is_communication(ActionKind kind) {
  return kind >= ActionKind::SendForward && kind <= ActionKind::ReceiveBackward;
}

/// True for `SEND_F` and `SEND_B`.
[[nodiscard]] constexpr bool is_send(ActionKind kind) {
  return kind == ActionKind::SendForward || kind == ActionKind::SendBackward;
}

/// True for what PyTorch's runtime does to a stage as a whole; penstock reads and writes it, and runs nothing for it.
[[nodiscard]] constexpr bool is_stage_marker(ActionKind kind) {
  return kind >= ActionKind::Unshard && kind <= ActionKind::ReduceGradient;
}

/// For each stage the ranks that hold a copy of it: one, two for a bidirectional schedule, and as many times more as
/// there are replicas.
struct Placement {
  std::vector<std::vector<RankId>> holders;  ///< by stage; each list ascending

  friend bool operator==(const Placement&, const Placement&) = default;
};

/// Stage s on rank s mod P. \param ranks,stages at least 1.
[[nodiscard]] Placement loop_placement(int ranks, int stages);

/// Stages 0 … 2P − 1 on ranks 0, 1, …, P − 1, P − 1, …, 1, 0 (arXiv 2405.15362, section 3).
[[nodiscard]] Placement v_placement(int ranks);

/// The stages to and fro over the ranks: a V for `stages_per_rank` 2, and so on for more (arXiv 2308.15762).
[[nodiscard]] Placement wave_placement(int ranks, int stages_per_rank);

/// Which rank does which actions in which order. A value; only `verify` says whether it can run.
struct Schedule {
  int stages = 0;                            ///< S, at least 1
  int microbatches = 0;                      ///< M, at least 1
  Placement placement;                       ///< one entry for each stage
  std::vector<std::vector<Action>> actions;  ///< by rank, in the order of execution
  bool forward_only = false;                 ///< evaluation or inference: no stage does a backward

  [[nodiscard]] int ranks() const { return static_cast<int>(actions.size()); }

  friend bool operator==(const Schedule&, const Schedule&) = default;
};

/// One cell: `2F0`, `3SEND_F1`, nothing for a step of waiting. An overlap belongs to two actions and is not shown.
[[nodiscard]] std::string to_string(const Action& action);

/// The text form, one line a rank, each ended by a newline. `parse_schedule` of it gives back an equal schedule.
[[nodiscard]] std::string to_csv(const Schedule& schedule);

/// Reads the text form. Stages, microbatches and placement follow from the actions. Says nothing of correctness: that
/// is the verifier's. \throws Error (BadInput) that names row and column where the text is not a schedule.
[[nodiscard]] Schedule parse_schedule(std::string_view csv);

/// When a send and a receive end, which decides whether their order can deadlock.
enum class SendMode {
  /// At once: a send's message waits for its receive, a receive posts a buffer, and the action that needs the message
  /// waits for it. What penstock's transports do.
  NonBlocking,
  Blocking,  ///< When the other side has been reached, as a rendezvous does (NCCL without buffers).
};

/// In which order a stage's weight gradients may be added up.
enum class Accumulation {
  InOrder,  ///< That of the microbatches, which makes the sums equal to the bit for every schedule. What penstock runs.
  AnyOrder,  ///< Whatever the file says, for schedules of other engines that are to be looked at and not run.
};

/// What `verify` assumes of the sends, and the limits that it holds a schedule against.
struct VerifyOptions {
  SendMode sends = SendMode::NonBlocking;  ///< matters only to schedules with sends and receives
  /// The most activations that a rank may hold at a time, in activations of one microbatch on one stage: one more with
  /// each F, one less with each B or W. Nothing: no limit. A forward-only schedule holds none.
  std::optional<int> memory_cap = std::nullopt;
  Accumulation accumulation = Accumulation::InOrder;
};

/// A schedule that has been proved complete and free of deadlock. Immutable.
class VerifiedSchedule {
 public:
  [[nodiscard]] const Schedule& get() const { return schedule_; }
  const Schedule* operator->() const { return &schedule_; }

  /// What was proved of the weight gradients. The executor runs only `InOrder`.
  [[nodiscard]] Accumulation accumulation() const { return accumulation_; }

 private:
  friend VerifiedSchedule verify(Schedule schedule, const VerifyOptions& options);
  VerifiedSchedule(Schedule schedule, Accumulation accumulation)
      : schedule_(std::move(schedule)), accumulation_(accumulation) {}
  Schedule schedule_;
  Accumulation accumulation_;
};

/// Proves that
/// - every stage does every microbatch's F and its B (or I and then W) exactly once, all on one rank that holds the
///   stage; if the schedule says `forward_only`, its F and nothing else;
/// - every action comes after what it depends on, and no set of actions waits for itself in a circle (no deadlock),
///   for compute schedules as for lowered ones, with non-blocking or with blocking sends;
/// - gradients accumulate in the order of the microbatches on every copy of a stage, which is what makes the numbers
///   equal to the bit;
/// - in a lowered schedule every boundary that crosses ranks is sent and received exactly once, after it was computed
///   and before it is used, so that a buffer is alive when it is read and is freed once;
/// - overlapped pairs are a forward and a backward that do not need each other;
/// - no rank holds more activations than the cap, where there is one.
///
/// Time and memory are linear in the number of actions.
///
/// \throws Error (BadInput). The message's first line stands alone: rank and position (from 0, empty cells counted),
/// the action, what is wrong and what to do; for a deadlock, the circle. The lines after it show the neighbourhood in
/// the grid with the action between `>` and `<`.
[[nodiscard]] VerifiedSchedule verify(Schedule schedule, const VerifyOptions& options = {});

/// The most activations that each rank holds at a time, counted as the cap of VerifyOptions counts them.
[[nodiscard]] std::vector<int> peak_activations(const Schedule& schedule);

/// Where receives stand.
struct LowerOptions {
  /// The most receives of a rank that are posted and not yet used, each of which holds the memory of a boundary: a
  /// receive stands as early as that permits. 0: as late as it may, for engines that wait in their receives. More are
  /// posted where one action needs them. Typical: 2.
  int posted_receives = 0;
};

/// Adds the sends and receives that the placement calls for. A send follows its action at once (it does not block). A
/// receive only posts a buffer, and nothing waits for it but the action that needs the message. The receives from a
/// rank are in the order of its sends, so that engines that identify messages only by their order (NCCL, PyTorch's
/// runtime) can run the schedule; a message that was sent earlier arrives no later. Boundaries between two stages of
/// one rank need neither. A schedule that already has sends or receives is returned as it is. Time and memory are
/// linear in the number of actions. \throws Error (BadInput) for a negative number of posted receives.
[[nodiscard]] VerifiedSchedule lower(const VerifiedSchedule& compute, const LowerOptions& options = {});

}  // namespace penstock
