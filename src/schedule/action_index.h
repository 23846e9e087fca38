/// \file
/// Where each action of a schedule stands.
#pragma once

#include <array>
#include <vector>

#include "penstock/base/index.h"

#include "schedule/refusal.h"

namespace penstock {

/// The places of all actions by (stage, microbatch). A whole backward stands in both backward tables. Memory: linear in
/// the number of actions, because a schedule has at least one for each stage and microbatch.
struct ActionIndex {
  std::size_t microbatches = 0;
  bool communicates = false;  ///< there are sends or receives
  std::vector<Place> forward;
  std::vector<Place> input_backward;
  std::vector<Place> weight_backward;
  // Empty if nothing communicates.
  std::vector<Place> send_forward;
  std::vector<Place> receive_forward;
  std::vector<Place> send_backward;
  std::vector<Place> receive_backward;

  [[nodiscard]] std::size_t slot(std::int32_t stage, std::int32_t microbatch) const {
    return as_size(stage) * microbatches + as_size(microbatch);
  }
  [[nodiscard]] std::size_t slot(const Action& action) const {
    return slot(action.stage.value, action.microbatch.value);
  }
};

/// Indexes a schedule that `check_shape` has passed. \throws Error for an action that stands twice.
[[nodiscard]] ActionIndex index_actions(const Schedule& schedule);

/// What an action waits for: until the rank of `place` has done it or, where `reached` is enough, has come to it.
struct Dependency {
  Place place;
  bool reached = false;
};

/// Up to three dependencies.
struct Dependencies {
  std::array<Dependency, 3> items{};
  std::size_t count = 0;

  void add(Place place, bool reached = false) { items.at(count++) = {place, reached}; }
  [[nodiscard]] const Dependency* begin() const { return items.data(); }
  [[nodiscard]] const Dependency* end() const { return items.data() + count; }
};

/// What the action at `place` waits for, besides the actions before it on its rank. For complete schedules.
/// \param rendezvous a send also waits for its receive to be reached.
[[nodiscard]] Dependencies dependencies_of(const Schedule& schedule, const ActionIndex& index, Place place,
                                           bool rendezvous);

}  // namespace penstock
