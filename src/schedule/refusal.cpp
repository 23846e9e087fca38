#include "schedule/refusal.h"

#include <algorithm>
#include <fmt/format.h>

#include "penstock/base/index.h"

namespace penstock {
namespace {

constexpr int rows_around = 2;
constexpr int columns_around = 3;

std::string cell_text(const std::vector<Action>& row, std::size_t position) {
  if (position >= row.size()) return {};
  const Action& action = row[position];
  if (action.kind == ActionKind::Idle) return "-";
  return to_string(action) + (action.overlaps_next ? "+" : "");
}

}  // namespace

std::string name_of(const Schedule& schedule, Place place) {
  const auto& row = entry(schedule.actions, place.rank);
  if (as_index(place.position) >= row.size())
    return fmt::format("rank {}, position {}, the end:", place.rank, place.position);
  const Action& action = at(schedule, place);
  return fmt::format("rank {}, position {}: {}", place.rank, place.position,
                     action.kind == ActionKind::Idle ? "an empty cell" : to_string(action));
}

std::string neighbourhood(const Schedule& schedule, Place place) {
  const int first_rank = std::max(0, place.rank - rows_around);
  const int last_rank = std::min(schedule.ranks() - 1, place.rank + rows_around);
  const int first = std::max(0, place.position - columns_around);
  const int last = place.position + columns_around;
  std::size_t width = 4;
  for (int rank = first_rank; rank <= last_rank; ++rank)
    for (int position = first; position <= last; ++position)
      width = std::max(width, 2 + cell_text(entry(schedule.actions, rank), as_index(position)).size());
  const auto trim_right = [](std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    return line + '\n';
  };
  std::string header = fmt::format("{:>9}", "");
  for (int position = first; position <= last; ++position) header += fmt::format(" {:>{}}", position, width);
  std::string grid = trim_right(header);
  for (int rank = first_rank; rank <= last_rank; ++rank) {
    std::string line = fmt::format("rank {:>4}", rank);
    for (int position = first; position <= last; ++position) {
      std::string text = cell_text(entry(schedule.actions, rank), as_index(position));
      const bool marked = rank == place.rank && position == place.position;
      line += fmt::format(" {:>{}}", marked ? fmt::format(">{}<", text) : text, width);
    }
    grid += trim_right(line);
  }
  grid.pop_back();
  return grid;
}

Error refusal(const Schedule& schedule, Place place, const std::string& got, const std::string& expected,
              const std::string& remedy) {
  const Error line = bad_input(fmt::format("{} {}", name_of(schedule, place), got), expected, remedy);
  return {ErrorKind::BadInput, fmt::format("{}\n{}", line.what(), neighbourhood(schedule, place))};
}

}  // namespace penstock
