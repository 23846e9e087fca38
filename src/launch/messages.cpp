#include "messages.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/index.h"

namespace penstock::launching {
namespace {

constexpr std::size_t longest_line = std::size_t{64} << 10U;
constexpr std::size_t most_held = 20;
// Enough to know again what all ranks say of one failure; what follows is shown twice rather than kept for ever.
constexpr std::size_t most_remembered = 4096;

char lower(char letter) { return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter; }

bool contains_word(std::string_view line, std::string_view word) {
  const auto same = [](char in_line, char in_word) { return lower(in_line) == in_word; };
  return std::search(line.begin(), line.end(), word.begin(), word.end(), same) != line.end();
}

}  // namespace

void LineReader::add(std::string_view piece, const std::function<void(const std::string&)>& line) {
  for (const char letter : piece) {
    const bool ends = letter == '\n' || letter == '\r';
    if (!ends) begun_ += letter;
    if (ends || begun_.size() >= longest_line) finish(line);
  }
}

void LineReader::finish(const std::function<void(const std::string&)>& line) {
  if (begun_.empty()) return;
  line(begun_);
  begun_.clear();
}

bool reports_failure(std::string_view line) {
  // libtorch's own log begins with the first letter of its level and the date.
  if (line.size() > 2 && line[0] == '[' && (line[1] == 'W' || line[1] == 'E' || line[1] == 'F') && line[2] >= '0' &&
      line[2] <= '9')
    return true;
  if (line.starts_with("penstock: ")) return true;
  constexpr std::array<std::string_view, 14> words = {
      "error",     "warn",   "fail",       "exception", "fatal",   "abort",     "terminate called",
      "traceback", "assert", "; expected", "cannot",    "no such", "sanitizer", "what():"};
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) { return contains_word(line, word); });
}

MessageRelay::MessageRelay(int ranks, bool verbose, std::function<void(const std::string&)> show)
    : verbose_(verbose), show_(std::move(show)), ranks_(as_size(ranks)) {}

void MessageRelay::add(int rank, const std::string& line) {
  Rank& from = entry(ranks_, rank);
  const bool trouble = reports_failure(line);
  from.last = line;
  if (trouble) from.last_trouble = line;
  if (trouble || verbose_) {
    show(rank, line);
  } else if (rank == 0) {
    if (show_) show_(line);
  } else {
    from.held.push_back(line);
    if (from.held.size() > most_held) from.held.pop_front();
  }
}

void MessageRelay::show(int rank, const std::string& line) {
  if (first_ranks_.size() >= most_remembered) first_ranks_.clear();
  if (first_ranks_.try_emplace(line, rank).first->second != rank) return;
  if (show_) show_(fmt::format("rank {}: {}", rank, line));
}

void MessageRelay::show_held(int rank) {
  for (const std::string& line : std::exchange(entry(ranks_, rank).held, {})) show(rank, line);
}

const std::string& MessageRelay::last_line(int rank) const {
  const Rank& from = entry(ranks_, rank);
  return from.last_trouble.empty() ? from.last : from.last_trouble;
}

}  // namespace penstock::launching
