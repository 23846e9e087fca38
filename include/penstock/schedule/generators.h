/// \file
/// The published schedules as functions from sizes to a compute schedule (no sends, no receives: `lower` adds
/// them).
///
///     const penstock::Schedule schedule = penstock::make_schedule("zb-v", /*ranks=*/4, /*microbatches=*/8);
///
/// p: ranks, m: microbatches, v: stages a rank; T_F, T_B, T_W: times of a stage's forward, input gradient and weight
/// gradient. Bubble: the time that a rank waits between its first and its last action, all stages alike and links free.
/// Activations are counted in microbatches of one stage, from F to B or W. All take any p ≥ 1 and m ≥ 1 unless
/// stated otherwise. If a paper wants more microbatches than m, or a multiple of something, its shape for the next
/// larger number is taken and the microbatches from m on are left out of it, which leaves every dependency as it was.
/// \throws Error (BadInput) for a size below 1 or one that the schedule does not exist for.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "penstock/schedule/verify.h"

namespace penstock {

/// One microbatch at a time through all stages, forward and backward: what cutting a network without pipelining does.
/// Bubble: each rank works 1/p of the time. Peak activations: 1.
[[nodiscard]] Schedule naive_schedule(int ranks, int microbatches);

/// All forwards, then all backwards, both in the order of the microbatches (arXiv 1811.06965, section 2.2).
/// Bubble: (p − 1)(T_F + T_B + T_W). Peak activations: m.
[[nodiscard]] Schedule gpipe_schedule(int ranks, int microbatches);

/// Warm up with p − 1 − r forwards on rank r, then alternate one forward and one backward (arXiv 2104.04473, section
/// 2.2.1, after PipeDream). Bubble: (p − 1)(T_F + T_B + T_W). Peak activations: min(p − r, m).
[[nodiscard]] Schedule one_f_one_b_schedule(int ranks, int microbatches);

/// Forwards alone, in the order of the microbatches: evaluation. Says `forward_only`. Bubble: none. Activations: none.
[[nodiscard]] Schedule forward_only_schedule(int ranks, int microbatches);

/// 1F1B over v stages a rank in a loop, p microbatches of a stage at a time (arXiv 2104.04473, section 2.2.2).
/// Bubble: (p − 1)(T_F + T_B + T_W), of times that are v times shorter.
/// Peak activations: min(pv + p − 1 + g, mv), g = (v − 1)(⌈m/⌊m/p⌋⌉ − p), which is 0 where p divides m.
[[nodiscard]] Schedule interleaved_1f1b_schedule(int ranks, int stages_per_rank, int microbatches);

/// All microbatches through a rank's first stage, then its second and so on, and the same way back, the backwards in
/// the order of the microbatches (arXiv 2211.05953, section 4). Bubble: (p − 1)(T_F + T_B + T_W) of v times shorter
/// times, for m ≥ p. Peak activations: mv.
[[nodiscard]] Schedule looped_bfs_schedule(int ranks, int stages_per_rank, int microbatches);

/// 1F1B with the backward split; rank r puts its weight gradients off by r microbatches (arXiv 2401.10241,
/// section 2.3). Bubble: (p − 1)(T_F + T_B − T_W). Peak activations: min(p, m).
[[nodiscard]] Schedule zb_h1_schedule(int ranks, int microbatches);

/// As ZB-H1 with twice the warm-up and 2r microbatches of delay (arXiv 2401.10241, section 2.3). Bubble:
/// (p − 1)(T_F + T_B − 2T_W), for m ≥ 2p − 1. Peak activations: min(2p − 1, m).
[[nodiscard]] Schedule zb_h2_schedule(int ranks, int microbatches);

/// Interleaved 1F1B with the backward split as in ZB-H1 and half of its warm-up beyond the loops, which the split makes
/// sufficient (after arXiv 2401.10241; the paper has no formula for it). Bubble: (p − 1)(T_F + T_B − T_W) in unit
/// times. Peak activations: min(pv + g, mv), g as above.
[[nodiscard]] Schedule interleaved_zero_bubble_schedule(int ranks, int stages_per_rank, int microbatches);

/// Two stages a rank in a V (arXiv 2401.10241, section 6). Bubble: 0 if T_F = T_B = T_W and m ≥ 2p − 1.
/// Peak activations: min(2p, 2m), which is what 1F1B with stages of twice the size holds.
[[nodiscard]] Schedule zb_v_schedule(int ranks, int microbatches);

/// A V whose microbatches all follow one block, repeated every six steps (arXiv 2405.15362, section 3). Bubble:
/// about p(T_F + T_B + T_W), in unit times 7p/2 − 4 for an even p. Half of 1F1B's memory: at most 2⌊(p + 2)/2⌋
/// activations.
[[nodiscard]] Schedule v_half_schedule(int ranks, int microbatches);

/// The V with the shortest lives (arXiv 2405.15362, section 3). Bubble: about 4p(T_F + T_B + T_W)/3. Peak activations:
/// at most 2⌊(p + 4)/3⌋, a third of 1F1B's.
[[nodiscard]] Schedule v_min_schedule(int ranks, int microbatches);

/// Two copies of the network, microbatches from both ends, forwards and backwards overlapped (arXiv 2412.19437, section
/// 3.2.1). Even microbatches go from rank 0 to p − 1, odd ones the other way; stage s is held by ranks s and p − 1 − s,
/// and the gradients of the two copies must be added. Bubble: (p/2 − 1)(F&B + B − 3T_W), B the whole backward, for even
/// m ≥ 2p. Peak activations: min(p + 1, m). p must be even.
[[nodiscard]] Schedule dualpipe_schedule(int ranks, int microbatches);

/// DualPipe cut in half: two stages a rank in a V, one copy of the network ("DualPipeV", by the authors of arXiv
/// 2412.19437 with Sea AI Lab). Bubble: (p − 1)(F&B + B − 3T_W) for m ≥ 2p. Peak activations: min(2p + 1, 2m).
[[nodiscard]] Schedule dualpipev_schedule(int ranks, int microbatches);

/// Two 1F1B pipelines in opposite directions (arXiv 2107.06925, section 3). Holders as DualPipe's. Bubble: for
/// T_F = T_B + T_W the share (p − 2)/(2m + p − 2) of the makespan for even m; if the backward takes longer, every p
/// microbatches wait again. Peak activations: at most p. p must be even.
[[nodiscard]] Schedule chimera_schedule(int ranks, int microbatches);

/// The stages go to and fro over the ranks in waves, v = 2 × waves stages a rank (arXiv 2308.15762). Bubble: falls with
/// the number of waves, for m = p below the share (2p − 2)/(3pw + p − 1). Peak activations: pv for m = p, and up to
/// max(2, p/2) more with more microbatches. \param stages_per_rank even.
[[nodiscard]] Schedule hanayo_schedule(int ranks, int stages_per_rank, int microbatches);

/// What there is to know of a generator before it is called.
struct ScheduleFamily {
  std::string_view name;    ///< as `make_schedule` takes it: "1f1b"
  std::string_view title;   ///< "ZB-H1"
  std::string_view paper;   ///< where it was published; empty if there is none
  std::string_view bubble;  ///< a rank's bubble as a formula
  std::string_view memory;  ///< peak activations as a formula
  int stages_per_rank = 1;  ///< the number, or the default where `stages_per_rank_varies`
  bool stages_per_rank_varies = false;
  int ranks_multiple = 1;      ///< the number of ranks must be a multiple of this
  int stages_multiple = 1;     ///< and so the number of stages a rank of this
  bool bidirectional = false;  ///< stages have two holders, whose gradients must be added
  bool forward_only = false;   ///< it has no backward passes, and so trains nothing
};

/// All generators, in the order of their publication.
[[nodiscard]] std::span<const ScheduleFamily> schedule_families();

/// The generator of that name; null if there is none. It lives as long as the program.
[[nodiscard]] const ScheduleFamily* find_schedule_family(std::string_view name);

/// The generator of that name. It lives as long as the program. \throws Error (BadInput) that lists the names.
[[nodiscard]] const ScheduleFamily& schedule_family(std::string_view name);

/// Refuses what `make_schedule` refuses, and makes nothing. \throws Error (BadInput)
void check_generated(std::string_view name, int ranks, int microbatches,
                     std::optional<int> stages_per_rank = std::nullopt);

/// The schedule of that generator, "1f1b" or "zb-v". \param stages_per_rank by default the family's. \throws Error
/// (BadInput) that lists the names, or says what the family does not allow.
[[nodiscard]] Schedule make_schedule(std::string_view name, int ranks, int microbatches,
                                     std::optional<int> stages_per_rank = std::nullopt);

}  // namespace penstock
