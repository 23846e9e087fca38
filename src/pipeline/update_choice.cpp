#include "pipeline/update_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "penstock/base/quantile.h"

namespace penstock {
namespace {

constexpr std::int64_t period = 512;  // steps from one measurement to the next
constexpr std::int64_t settling = 4;  // first steps of a period, in which caches and allocators find their sizes
constexpr std::int64_t turn = 4;
constexpr std::int64_t turns = 6;
// A gain that is smaller than this is not worth the memory.
constexpr double least_gain = 0.01;

}  // namespace

bool UpdateChoice::goes_first() const { return goes_first(seen_); }

bool UpdateChoice::goes_first(std::int64_t step) const {
  if (asked_) return *asked_;
  const std::int64_t measured = step % period - settling;
  if (measured < 0 || measured >= turn * turns) return faster_first_;
  return measured / turn % 2 == 1;
}

void UpdateChoice::saw(const std::vector<double>& pace_ms) {
  const std::int64_t step = seen_++;
  if (asked_) return;
  if (std::ranges::any_of(pace_ms, [](double pace) { return std::isinf(pace); })) {
    asked_ = false;
    return;
  }
  const std::int64_t measured = step % period - settling;
  // From the end of a step to that of the next lies the update of the first. A turn's first step has another's before
  // it.
  const bool counts = measured > 0 && measured <= turn * turns && (measured - 1) % turn != 0;
  const bool known = std::ranges::all_of(pace_ms, [](double pace) { return pace > 0; });
  if (counts && known)
    pace_ms_[goes_first(step - 1) ? 1 : 0].push_back(std::accumulate(pace_ms.begin(), pace_ms.end(), 0.0) /
                                                     static_cast<double>(pace_ms.size()));
  if (measured != turn * turns) return;
  const auto& [waiting, first] = pace_ms_;
  faster_first_ = !waiting.empty() && !first.empty() && median(first) < median(waiting) * (1 - least_gain);
  pace_ms_ = {};
}

}  // namespace penstock
