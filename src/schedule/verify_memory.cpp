#include <algorithm>
#include <fmt/format.h>

#include "penstock/base/index.h"

#include "schedule/verify_passes.h"

namespace penstock {
namespace {

// Calls `visit` with each position and the activations held once the action there has begun.
template <class Visit>
void count_activations(const Schedule& schedule, std::int32_t rank, const Visit& visit) {
  if (schedule.forward_only) return;
  int held = 0;
  const auto& row = entry(schedule.actions, rank);
  for (std::int32_t position = 0; position < static_cast<std::int32_t>(row.size()); ++position) {
    const Action& action = entry(row, position);
    if (takes_activation(action.kind)) ++held;
    visit(position, held);
    if (frees_activation(action.kind)) --held;
  }
}

}  // namespace

std::vector<int> peak_activations(const Schedule& schedule) {
  std::vector<int> peaks(schedule.actions.size());
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
    count_activations(schedule, rank, [&](std::int32_t, int held) {
      int& peak = entry(peaks, rank);
      peak = std::max(peak, held);
    });
  return peaks;
}

void check_memory(const Schedule& schedule, int cap) {
  for (std::int32_t rank = 0; rank < schedule.ranks(); ++rank)
    count_activations(schedule, rank, [&](std::int32_t position, int held) {
      if (held <= cap) return;
      const auto peaks = peak_activations(schedule);
      throw refusal(schedule, {rank, position}, "makes its rank hold " + counted(held, "activation"),
                    fmt::format("at most {}, the memory cap", cap),
                    fmt::format("do a backward first, or raise the cap to {}, the schedule's peak",
                                *std::max_element(peaks.begin(), peaks.end())));
    });
}

}  // namespace penstock
