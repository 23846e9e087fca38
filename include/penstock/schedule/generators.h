/// \file
/// The published schedules as functions from sizes to a compute schedule (no sends, no receives: see lower.h).
///
/// p: ranks, m: microbatches, T_F, T_B: times of a stage's forward and backward. All take any p ≥ 1 and m ≥ 1, also
/// m < p and m no multiple of p. \throws Error (BadInput) for p or m below 1.
#pragma once

#include "penstock/schedule/schedule.h"

namespace penstock {

/// One microbatch at a time through all stages, forward and backward: what cutting a network without pipelining does.
/// Bubble: each rank works 1/p of the time. Peak activations: 1.
[[nodiscard]] Schedule naive_schedule(int ranks, int microbatches);

/// All forwards, then all backwards, both in the order of the microbatches (arXiv 1811.06965, section 2.2).
/// Bubble: (p − 1)(T_F + T_B) a rank. Peak activations: m.
[[nodiscard]] Schedule gpipe_schedule(int ranks, int microbatches);

/// Warm up with p − 1 − r forwards on rank r, then alternate one forward and one backward (arXiv 2104.04473, section
/// 2.2.1, after PipeDream). Bubble: (p − 1)(T_F + T_B) a rank. Peak activations: min(p − r, m).
[[nodiscard]] Schedule one_f_one_b_schedule(int ranks, int microbatches);

/// The generator of that name: "naive", "gpipe", "1f1b". \throws Error (BadInput) that lists the names.
[[nodiscard]] Schedule make_schedule(std::string_view name, int ranks, int microbatches);

}  // namespace penstock
