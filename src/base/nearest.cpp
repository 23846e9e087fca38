#include "penstock/base/nearest.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace penstock {
namespace {

std::string in_small_letters(std::string_view text) {
  std::string result(text);
  for (char& letter : result)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  return result;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // The distances from the first i letters of `a` to each beginning of `b`: for this i, the one before and the one
  // before that.
  std::vector<std::size_t> row(b.size() + 1);
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> before_that(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before_that.swap(before);
    before.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = before[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({before[j] + 1, row[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_that[j - 2] + 1);
    }
  }
  return row.back();
}

std::optional<std::string> nearest_word(std::string_view unknown, std::span<const std::string> known) {
  constexpr std::size_t longest = 64;  // what is longer was not meant as a word
  if (unknown.empty() || unknown.size() > longest) return std::nullopt;
  const std::string wanted = in_small_letters(unknown);
  std::optional<std::string> nearest;
  auto least = std::numeric_limits<std::size_t>::max();
  for (const std::string& word : known) {
    const std::size_t distance = edit_distance(wanted, in_small_letters(word));
    const std::size_t most = std::max<std::size_t>(1, std::min(wanted.size(), word.size()) / 3);
    // If a word of one letter differs, everything has changed.
    if (distance > most || distance >= std::max(wanted.size(), word.size()) || distance >= least) continue;
    least = distance;
    nearest = word;
  }
  return nearest;
}

std::string did_you_mean(std::string_view unknown, std::span<const std::string> known) {
  const auto nearest = nearest_word(unknown, known);
  return nearest ? "; did you mean '" + *nearest + "'?" : "";
}

}  // namespace penstock
