// Whether updates wait for the norm or are made before it is known, by measurement where nobody has said.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace penstock {

// Each rank has one, and all of them decide alike, since all see the same numbers in the same order. The numbers of the
// run do not depend on it.
//
// The first steps are made in turns of four, waiting and not; after three turns of each the faster way is kept. It is
// measured anew every 512 steps, as runs change: gradients are clipped more or less often, data become slower.
class UpdateChoice {
 public:
  // \param asked nothing: by measurement.
  explicit UpdateChoice(std::optional<bool> asked) : asked_(asked) {}

  // Whether the next update is to be made before its norm is known.
  [[nodiscard]] bool goes_first() const;

  // Whether it is for measurement to say.
  [[nodiscard]] bool measures() const { return !asked_; }

  // A step has been checked. \param pace_ms by rank, from the end of its step before to the end of this one; 0 or less
  // where it is not known; infinite from a rank that has no room for what a taken-back update needs: then all wait from
  // now on.
  void saw(const std::vector<double>& pace_ms);

 private:
  [[nodiscard]] bool goes_first(std::int64_t step) const;

  std::optional<bool> asked_;
  bool faster_first_ = false;                        // what was measured last
  std::int64_t seen_ = 0;                            // steps
  std::array<std::vector<double>, 2> pace_ms_ = {};  // of this measurement: of steps that waited, of others
};

}  // namespace penstock
