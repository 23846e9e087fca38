/// \file
/// The verifier's passes, in the order in which they run: each may rely on what those before it have proved.
#pragma once

#include "penstock/schedule/verify.h"

#include "schedule/action_index.h"

namespace penstock {

/// Sizes agree with each other, ids are in range, each rank works and only on stages that it holds, pairs are pairs.
void check_shape(const Schedule& schedule);

/// There are enough forwards for every stage and microbatch, so that tables of stages × microbatches are linear in the
/// number of actions. Needs check_shape.
void check_forward_count(const Schedule& schedule);

/// Every stage and microbatch has its F and its B, or I and W, on one rank.
void check_complete(const Schedule& schedule, const ActionIndex& index);

/// Weight gradients come in the order of the microbatches on each copy of a stage.
void check_accumulation(const Schedule& schedule);

/// Each boundary that crosses ranks has its send and its receive where they belong, and no other has.
void check_boundaries(const Schedule& schedule, const ActionIndex& index);

/// Nothing waits for itself: neither for what stands later on its own rank nor in a circle of ranks.
void check_order(const Schedule& schedule, const ActionIndex& index, SendMode sends);

/// No rank ever holds more than `cap` activations.
void check_memory(const Schedule& schedule, int cap);

}  // namespace penstock
