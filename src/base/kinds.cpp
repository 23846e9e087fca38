#include <fmt/format.h>
#include <fmt/ranges.h>

#include "penstock/base/nearest.h"
#include "penstock/base/types.h"

namespace penstock {

Error unknown_word(std::string_view word, const std::vector<std::string>& words) {
  return bad_input(fmt::format("\"{}\"", shortened(word)),
                   fmt::format("one of {}{}", fmt::join(words, ", "), did_you_mean(word, words)), "correct the word");
}

}  // namespace penstock
