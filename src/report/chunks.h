/// \file
/// Which of its stages a rank works on: ranks with several stages show them in different shades.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "penstock/base/index.h"
#include "penstock/timeline/timeline.h"

namespace penstock {

/// The stages of each rank that the timeline shows, ascending.
class Chunks {
 public:
  explicit Chunks(const Timeline& timeline) {
    for (const auto& events : timeline.ranks) {
      std::vector<std::int32_t>& stages = stages_.emplace_back();
      for (const Event& event : events) {
        if (!is_compute(event.action.kind)) continue;
        const auto place = std::lower_bound(stages.begin(), stages.end(), event.action.stage.value);
        if (place == stages.end() || *place != event.action.stage.value) stages.insert(place, event.action.stage.value);
      }
      most_ = std::max(most_, stages.size());
    }
  }

  /// The position of a stage among those of its rank, from 0.
  [[nodiscard]] std::size_t of(std::size_t rank, StageId stage) const {
    const auto& stages = stages_[rank];
    return as_size(std::lower_bound(stages.begin(), stages.end(), stage.value) - stages.begin());
  }
  [[nodiscard]] const std::vector<std::int32_t>& stages_of(std::size_t rank) const { return stages_[rank]; }
  /// Stages of the rank that has most.
  [[nodiscard]] std::size_t most() const { return most_; }

 private:
  std::vector<std::vector<std::int32_t>> stages_;
  std::size_t most_ = 0;
};

}  // namespace penstock
