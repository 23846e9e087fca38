#include <cmath>
#include <fmt/format.h>
#include <vector>

#include "penstock/base/index.h"
#include "penstock/report/report.h"
#include "penstock/schedule/verify.h"

#include "report/chunks.h"
#include "report/extent.h"
#include "report/kinds.h"

namespace penstock {
namespace {

constexpr std::size_t most_columns = 100'000;  ///< where one action is far shorter than the others

/// One column of one row: nothing, the start of a box or its rest.
struct Cell {
  const Event* event = nullptr;
  bool start = false;
};

struct Columns {
  double first = 0;
  double unit = 1;
  std::size_t count = 0;

  [[nodiscard]] std::size_t at(double time) const { return as_size(std::llround((time - first) / unit)); }
};

Columns columns_of(const Timeline& timeline) {
  const Extent extent = extent_of(timeline);
  if (extent.shortest <= 0) return {};
  const double unit = std::max(extent.shortest, (extent.last - extent.first) / static_cast<double>(most_columns));
  return {extent.first, unit, as_size(std::llround((extent.last - extent.first) / unit))};
}

/// The row of a rank. An action that rounding leaves without a column gets none: the next one would lose its own.
std::vector<Cell> row_of(const std::vector<Event>& events, const Columns& columns) {
  std::vector<Cell> row(columns.count);
  for (const Event& event : events) {
    if (!is_compute(event.action.kind)) continue;
    const std::size_t start = columns.at(event.start.count);
    const std::size_t end = std::min(columns.at(event.end.count), columns.count);
    for (std::size_t column = start; column < end; ++column) row[column] = {&event, column == start};
  }
  return row;
}

std::string label_of(const Action& action, bool colour) {
  return colour ? fmt::format("{}", action.microbatch.value) : to_string(action);
}

/// The widest label, and a space to keep neighbours apart.
std::size_t cell_width(const Timeline& timeline, bool colour) {
  std::size_t widest = 1;
  for (const auto& events : timeline.ranks)
    for (const Event& event : events)
      if (is_compute(event.action.kind)) widest = std::max(widest, label_of(event.action, colour).size());
  return widest + 1;
}

/// How the boxes of one drawing look.
struct BoxStyle {
  std::size_t width = 1;  ///< characters a column
  bool colour = false;
  const Chunks* chunks = nullptr;
};

/// A box is drawn whole: the number in its middle with colour, the text form and dashes without.
std::string box(const Event& event, std::size_t rank, std::size_t columns, const BoxStyle& style) {
  const std::string label = label_of(event.action, style.colour);
  const std::size_t size = columns * style.width - 1;
  if (!style.colour)
    return columns > 1 ? fmt::format("{:-<{}} ", label + "-", size) : fmt::format("{:<{}} ", label, size);
  constexpr int black = 16;
  const KindStyle& kind = style_of(event.action.kind);
  const bool last = style.chunks->of(rank, event.action.stage) + 1 >= style.chunks->most();
  // The last character stays without colour: it is the line between two boxes of one kind.
  return fmt::format("\x1b[38;5;{};48;5;{}m{:^{}}\x1b[0m ", black, last ? kind.terminal_colour : kind.terminal_light,
                     label, size);
}

std::string line_of(const std::vector<Cell>& row, std::size_t rank, std::size_t shown, const BoxStyle& style) {
  std::string line;
  for (std::size_t column = 0; column < shown;) {
    if (row[column].event == nullptr) {
      line += std::string(style.width, ' ');
      ++column;
      continue;
    }
    std::size_t end = column + 1;
    while (end < shown && row[end].event == row[column].event) ++end;
    line += box(*row[column].event, rank, end - column, style);
    column = end;
  }
  return line;
}

std::string without_blanks_behind(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

std::string legend(const Timeline& timeline, const Chunks& chunks) {
  std::string line;
  for (const ActionKind kind :
       {ActionKind::Forward, ActionKind::Backward, ActionKind::InputBackward, ActionKind::WeightBackward}) {
    for (const auto& events : timeline.ranks) {
      if (std::none_of(events.begin(), events.end(), [&](const Event& event) { return event.action.kind == kind; }))
        continue;
      line += fmt::format("\x1b[48;5;{}m  \x1b[0m {}   ", style_of(kind).terminal_colour, style_of(kind).title);
      break;
    }
  }
  if (!line.empty()) line += "numbers: microbatches   ";
  if (chunks.most() > 1) line += "lighter: the earlier of a rank's stages";
  return without_blanks_behind(line) + "\n";
}

}  // namespace

std::string to_grid(const Timeline& timeline, const GridOptions& options) {
  const Columns columns = columns_of(timeline);
  const std::size_t width = cell_width(timeline, options.colour);
  const std::size_t margin = fmt::format("rank {}  ", std::max<std::size_t>(timeline.ranks.size(), 1) - 1).size();
  std::size_t shown = columns.count;
  if (options.width > 0) {
    constexpr std::size_t narrowest = 24;
    const std::size_t room = std::max(as_size(options.width), narrowest) - margin;
    shown = std::min(shown, std::max<std::size_t>(room / width, 1));
  }
  const Chunks chunks(timeline);
  const BoxStyle style{width, options.colour, &chunks};
  std::string grid;
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank)
    grid += without_blanks_behind(fmt::format("{:<{}}{}", fmt::format("rank {}", rank), margin,
                                              line_of(row_of(timeline.ranks[rank], columns), rank, shown, style))) +
            "\n";
  if (options.colour) grid += legend(timeline, chunks);
  if (shown < columns.count)
    grid += fmt::format("… {} of {} columns; a wider terminal, svg or html show all\n", shown, columns.count);
  return grid;
}

}  // namespace penstock
