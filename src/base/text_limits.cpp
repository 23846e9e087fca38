#include "penstock/base/text_limits.h"

#include <algorithm>
#include <fmt/format.h>
#include <string>

#include "penstock/base/error.h"

namespace penstock {
namespace {

class Counter {
 public:
  Counter(std::string_view text, std::string_view source, const TextLimits& limits)
      : text_(text), source_(source), limits_(limits) {}

  void open(std::size_t at) {
    if (++depth_ > limits_.deepest) throw refused(at, "more values within values", limits_.deepest, "levels");
    value(at);
  }
  void close() { depth_ = std::max(depth_ - 1, 0); }
  void value(std::size_t at) {
    parts_ = 0;
    count(at);
  }
  // Each is a table of its own.
  void part(std::size_t at) {
    if (++parts_ >= limits_.deepest) throw refused(at, "a key of more parts", limits_.deepest, "parts");
    count(at);
  }
  void end_of_line() { parts_ = 0; }

 private:
  void count(std::size_t at) {
    if (++values_ > limits_.most_values) throw refused(at, "more values", limits_.most_values, "in all");
  }
  [[nodiscard]] Error refused(std::size_t at, const char* what, std::int64_t most, const char* where) const {
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    return bad_input(fmt::format("{} line {}: {} than are read", source_, line, what),
                     fmt::format("at most {} {}", most, where), "correct the file");
  }

  std::string_view text_;
  std::string_view source_;
  TextLimits limits_;
  int depth_ = 0;
  int parts_ = 0;
  std::int64_t values_ = 0;
};

// Behind the string that begins at `at`, or the text's end; a line's end ends one of a single line.
std::size_t behind_string(std::string_view text, std::size_t at, bool toml) {
  const char quote = text[at];
  const std::string three(3, quote);
  const bool lines = toml && text.substr(at).starts_with(three);
  std::size_t next = at + (lines ? 3 : 1);
  while (next < text.size()) {
    if (text[next] == '\\' && quote == '"') {
      next += 2;
    } else if (lines && text.substr(next).starts_with(three)) {
      // One or two quotes right before the end belong to the string. To look further would be quadratic in a row of
      // them.
      const std::string_view end = text.substr(next, 5);
      return next + std::min(end.find_first_not_of(quote), end.size());
    } else if (!lines && (text[next] == quote || (toml && text[next] == '\n'))) {
      return text[next] == quote ? next + 1 : next;
    } else {
      ++next;
    }
  }
  return text.size();
}

}  // namespace

std::optional<std::size_t> find_json_gap(std::string_view text) noexcept {
  std::size_t gap = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char letter = text[at];
    if (letter == ' ') continue;
    if (letter != '\n' && letter != '\r' && letter != '\t')
      gap = 0;
    else if (++gap > longest_json_gap)
      return at;
  }
  return std::nullopt;
}

void check_json_gaps(std::string_view text, std::string_view source) {
  if (const auto at = find_json_gap(text))
    throw bad_input(fmt::format("{} is empty for {} line ends and tabs up to byte {}", source, longest_json_gap, *at),
                    "JSON", "remove the gap");
}

void check_json_limits(std::string_view text, std::string_view source, const TextLimits& limits) {
  check_json_gaps(text, source);
  Counter counter(text, source, limits);
  for (std::size_t at = 0; at < text.size();) {
    const char letter = text[at];
    if (letter == '"') {
      at = behind_string(text, at, false);
      continue;
    }
    if (letter == '[' || letter == '{') counter.open(at);
    if (letter == ']' || letter == '}') counter.close();
    if (letter == ',') counter.value(at);
    ++at;
  }
}

void check_toml_limits(std::string_view text, std::string_view source, const TextLimits& limits) {
  Counter counter(text, source, limits);
  for (std::size_t at = 0; at < text.size();) {
    const char letter = text[at];
    if (letter == '"' || letter == '\'') {
      at = behind_string(text, at, true);
      continue;
    }
    if (letter == '#') {
      at = std::min(text.find('\n', at), text.size());
      continue;
    }
    if (letter == '[' || letter == '{') counter.open(at);
    if (letter == ']' || letter == '}') counter.close();
    if (letter == ',' || letter == '=') counter.value(at);
    if (letter == '.') counter.part(at);
    if (letter == '\n') counter.end_of_line();
    ++at;
  }
}

}  // namespace penstock
