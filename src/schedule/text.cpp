#include <algorithm>
#include <array>
#include <charconv>
#include <fmt/format.h>
#include <iterator>
#include <optional>

#include "penstock/base/error.h"
#include "penstock/base/index.h"
#include "penstock/schedule/verify.h"

namespace penstock {
namespace {

constexpr std::string_view overlap_name = "OVERLAP_F_B";

// In the order of ActionKind; Idle has no name.
constexpr std::array<std::string_view, 11> kind_names{"F",      "B",      "I",       "W",       "SEND_F",     "RECV_F",
                                                      "SEND_B", "RECV_B", "UNSHARD", "RESHARD", "REDUCE_GRAD"};

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// What a message may show of text that came from outside: short, and on one line whatever it holds.
std::string quoted(std::string_view text) {
  constexpr std::size_t most = 40;
  std::string result(text.substr(0, most));
  std::replace_if(result.begin(), result.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return fmt::format("'{}{}'", result, text.size() > most ? "…" : "");
}

// The number at the front of `text`, which it takes off.
std::optional<std::int32_t> take_number(std::string_view& text) {
  // No schedule that fits in a memory has ids near the limit; the distance keeps id + 1 from overflowing.
  constexpr std::int32_t largest = 1'000'000'000;
  std::int32_t value = 0;
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || value > largest) return std::nullopt;
  text.remove_prefix(as_size(end - text.data()));
  return value;
}

std::optional<Action> parse_action(std::string_view cell) {
  const auto stage = take_number(cell);
  if (!stage) return std::nullopt;
  const std::size_t name_length = std::min(cell.find_first_of("0123456789"), cell.size());
  const auto* const name = std::find(kind_names.begin(), kind_names.end(), cell.substr(0, name_length));
  if (name == kind_names.end()) return std::nullopt;
  cell.remove_prefix(name_length);
  Action action{static_cast<ActionKind>(std::distance(kind_names.begin(), name)), {*stage}, {-1}};
  if (is_stage_marker(action.kind)) return cell.empty() ? std::optional(action) : std::nullopt;
  const auto microbatch = take_number(cell);
  if (!microbatch || !cell.empty()) return std::nullopt;
  action.microbatch = {*microbatch};
  return action;
}

// Without the quotes that a spreadsheet puts around cells.
std::string_view unquoted(std::string_view cell) {
  const bool is_quoted = cell.size() >= 2 && cell.front() == '"' && cell.back() == '"';
  return is_quoted ? trimmed(cell.substr(1, cell.size() - 2)) : cell;
}

// Appends what the cell holds. False if it holds no action.
bool parse_cell(std::string_view cell, std::vector<Action>& row) {
  cell = unquoted(cell);
  if (cell.empty()) {
    row.push_back({ActionKind::Idle, {-1}, {-1}});
    return true;
  }
  if (cell.front() != '(') {
    const auto action = parse_action(cell);
    if (action) row.push_back(*action);
    return action.has_value();
  }
  const std::size_t close = cell.find(')');
  if (close == std::string_view::npos || trimmed(cell.substr(close + 1)) != overlap_name) return false;
  const std::string_view pair = cell.substr(1, close - 1);
  const std::size_t middle = pair.find(';');
  if (middle == std::string_view::npos) return false;
  auto first = parse_action(trimmed(pair.substr(0, middle)));
  const auto second = parse_action(trimmed(pair.substr(middle + 1)));
  if (!first || !second || !is_compute(first->kind) || !is_compute(second->kind)) return false;
  first->overlaps_next = true;
  row.push_back(*first);
  row.push_back(*second);
  return true;
}

std::vector<Action> parse_row(std::string_view line, std::size_t row_number) {
  std::vector<Action> row;
  if (line.empty()) return row;
  // Growing a long row would take twice as much memory.
  row.reserve(as_size(std::count(line.begin(), line.end(), ',')) + 1);
  for (std::size_t column = 1;; ++column) {
    const std::size_t comma = line.find(',');
    const std::string_view cell = line.substr(0, comma);
    if (!parse_cell(trimmed(cell), row))
      throw bad_input(fmt::format("row {}, column {} holds {}", row_number, column, quoted(trimmed(cell))),
                      "an action such as 2F0, 1SEND_F3, 0REDUCE_GRAD or (0F1;1B2)OVERLAP_F_B, or nothing",
                      "correct the cell");
    if (comma == std::string_view::npos) return row;
    line.remove_prefix(comma + 1);
  }
}

void check_count(std::int64_t count, std::int64_t cells, const char* noun) {
  if (count > cells)
    throw bad_input(fmt::format("the text names {} {} but has {} actions", noun, count - 1, cells),
                    fmt::format("an action for each {} from 0 on", noun), "number them from 0 without gaps");
}

// Stages, microbatches, placement and forward_only, as the actions show them.
void deduce_sizes(Schedule& schedule) {
  std::int64_t cells = 0;
  schedule.forward_only = true;
  for (const auto& row : schedule.actions) {
    for (const Action& action : row) {
      schedule.stages = std::max(schedule.stages, action.stage.value + 1);
      schedule.microbatches = std::max(schedule.microbatches, action.microbatch.value + 1);
      if (is_compute(action.kind) && action.kind != ActionKind::Forward) schedule.forward_only = false;
      if (action.kind != ActionKind::Idle) ++cells;
    }
  }
  if (schedule.stages == 0 || schedule.microbatches == 0)
    throw bad_input("the text holds no action of a microbatch", "a row for each rank with cells such as 2F0",
                    "check that it is a schedule");
  check_count(schedule.stages, cells, "stage");
  check_count(schedule.microbatches, cells, "microbatch");
  schedule.placement.holders.resize(as_size(schedule.stages));
  for (std::size_t rank = 0; rank < schedule.actions.size(); ++rank) {
    for (const Action& action : schedule.actions[rank]) {
      if (!is_compute(action.kind)) continue;
      auto& holders = entry(schedule.placement.holders, action.stage);
      const RankId id{static_cast<std::int32_t>(rank)};
      if (holders.empty() || holders.back() != id) holders.push_back(id);
    }
  }
}

void append_action(std::string& text, const Action& action) {
  if (action.kind == ActionKind::Idle) return;
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "{}{}", action.stage.value, kind_names.at(as_index(action.kind)));
  if (!is_stage_marker(action.kind)) fmt::format_to(out, "{}", action.microbatch.value);
}

}  // namespace

std::string to_string(const Action& action) {
  std::string text;
  append_action(text, action);
  return text;
}

std::string to_csv(const Schedule& schedule) {
  std::string text;
  for (const auto& row : schedule.actions) {
    // A lone empty cell is quoted, as Python's csv module does: an empty line is a rank without a cell.
    if (row.size() == 1 && row.front().kind == ActionKind::Idle) text += R"("")";
    bool second = false;
    for (std::size_t position = 0; position < row.size(); ++position) {
      const Action& action = row[position];
      const bool first = action.overlaps_next && position + 1 < row.size() && !second;
      if (position > 0) text += second ? ';' : ',';
      if (first) text += '(';
      append_action(text, action);
      if (second) fmt::format_to(std::back_inserter(text), "){}", overlap_name);
      second = first;
    }
    text += '\n';
  }
  return text;
}

Schedule parse_schedule(std::string_view csv) {
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (csv.starts_with(byte_order_mark)) csv.remove_prefix(byte_order_mark.size());
  constexpr std::ptrdiff_t most_cells = 25'000'000;
  const auto cells = std::count_if(csv.begin(), csv.end(), [](char letter) { return letter == ',' || letter == '\n'; });
  if (cells > most_cells)
    throw bad_input(fmt::format("a schedule of {} cells", cells), fmt::format("at most {}", most_cells),
                    "take fewer microbatches");
  Schedule schedule;
  while (!csv.empty()) {
    const std::size_t end = csv.find('\n');
    std::string_view line = csv.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    schedule.actions.push_back(parse_row(line, schedule.actions.size() + 1));
    csv.remove_prefix(end == std::string_view::npos ? csv.size() : end + 1);
  }
  deduce_sizes(schedule);
  return schedule;
}

}  // namespace penstock
