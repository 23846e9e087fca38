// Parameters that share memory where they must not.
#pragma once

#include <cstdint>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/nn/layer.h"

namespace penstock {

// A layer where it has been built.
struct PlacedLayer {
  RankId rank;
  std::int64_t layer = 0;
  const Layer* built = nullptr;
  bool is_held_elsewhere = false;  // see Layer
};

// Refuses what several threads would write, or several updates change: parameters that share elements of memory, in
// different layers, on different ranks or under different names, and modules with buffers in several layers. What it
// says does not depend on the order of `layers` nor, of one holder of each stage, on the ranks. No layer may be at
// work. Throws Error (BadInput).
void refuse_shared_memory(std::vector<PlacedLayer> layers);

// Parameters of different ranks that are views of one storage, with no element in common, also share autograd's count
// of changes: the update of a rank that is done would look like a change of what another has saved for its backward.
// This gives each rank a count of its own. No layer may be at work.
void count_versions_apart(const std::vector<PlacedLayer>& layers);

// Refuses the same of several processes, each of which sees its own layers only. Where somebody else holds the module
// of one of these, builds the others, one at a time, to see whether they are the same. Throws Error (BadInput).
void refuse_shared_with_others(const Network& network, const std::vector<PlacedLayer>& own);

}  // namespace penstock
