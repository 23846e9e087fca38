#include "unit/schedule/player.h"

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace penstock {
namespace {

using Done = std::map<std::tuple<char, int, int>, int>;

int duration(ActionKind kind, const UnitTimes& times) {
  if (kind == ActionKind::Forward) return times.forward;
  if (kind == ActionKind::InputBackward) return times.input_backward;
  return kind == ActionKind::Backward ? times.whole_backward : times.weight_backward;
}

char letter(ActionKind kind) {
  if (kind == ActionKind::Forward) return 'F';
  return kind == ActionKind::WeightBackward ? 'W' : 'B';
}

std::optional<int> ready(const Action& action, const Done& done, int stages) {
  const int s = action.stage.value;
  std::vector<std::tuple<char, int, int>> needs;
  if (letter(action.kind) == 'F' && s > 0) needs.emplace_back('F', s - 1, action.microbatch.value);
  if (letter(action.kind) == 'B') needs.emplace_back('F', s, action.microbatch.value);
  if (letter(action.kind) == 'B' && s + 1 < stages) needs.emplace_back('B', s + 1, action.microbatch.value);
  if (letter(action.kind) == 'W') needs.emplace_back('B', s, action.microbatch.value);
  int time = 0;
  for (const auto& need : needs) {
    const auto found = done.find(need);
    if (found == done.end()) return std::nullopt;
    time = std::max(time, found->second);
  }
  return time;
}

}  // namespace

int Played::most_waiting() const { return *std::max_element(waiting.begin(), waiting.end()); }

Played play(const Schedule& schedule, const UnitTimes& times) {
  Played played{0, std::vector<int>(schedule.actions.size()), std::vector<int>(schedule.actions.size())};
  std::vector<std::size_t> head(schedule.actions.size());
  std::vector<int> clock(schedule.actions.size(), -1);
  Done done;
  bool moved = true;
  while (std::exchange(moved, false)) {
    for (std::size_t rank = 0; rank < head.size(); ++rank) {
      const auto& row = schedule.actions[rank];
      while (head[rank] < row.size()) {
        const std::size_t count = row[head[rank]].overlaps_next ? 2 : 1;
        std::optional<int> start = std::max(clock[rank], 0);
        int length = 0;
        for (std::size_t i = head[rank]; start && i < head[rank] + count; ++i) {
          const auto time = ready(row[i], done, schedule.stages);
          start = time ? std::optional(std::max(*start, *time)) : std::nullopt;
          length += duration(row[i].kind, times);
        }
        if (!start) break;
        if (clock[rank] >= 0) played.waiting[rank] += *start - clock[rank];
        played.busy[rank] += length;
        clock[rank] = *start + length;
        for (std::size_t i = head[rank]; i < head[rank] + count; ++i)
          done[{letter(row[i].kind), row[i].stage.value, row[i].microbatch.value}] = clock[rank];
        head[rank] += count;
        moved = true;
      }
    }
  }
  for (std::size_t rank = 0; rank < head.size(); ++rank)
    if (head[rank] != schedule.actions[rank].size()) throw std::runtime_error("the schedule stands still");
  played.makespan = *std::max_element(clock.begin(), clock.end());
  return played;
}

}  // namespace penstock
