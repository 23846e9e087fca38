/// \file
/// Words that were seen lately, with their tokens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/tokenizer/tokenizer.h"

namespace penstock {

/// Remembers words of up to 64 bytes that have up to 12 tokens, 2 MiB of them at most: each word has one place, and the
/// last that came there has it. Not thread-safe.
class WordCache {
 public:
  /// Adds the word's tokens to `into`, where they are remembered.
  [[nodiscard]] bool find(std::string_view word, std::vector<TokenId>& into) const;
  void add(std::string_view word, std::span<const TokenId> ids);

 private:
  static constexpr std::size_t longest_word = 64;
  static constexpr std::size_t most_tokens = 12;
  static constexpr std::size_t places = std::size_t{1} << 14U;
  struct Place {
    std::uint64_t hash = 0;
    std::uint8_t word_size = 0;  // 0: nobody is here
    std::uint8_t tokens = 0;
    std::array<char, longest_word> word;
    std::array<TokenId, most_tokens> ids;
  };
  std::vector<Place> places_ = std::vector<Place>(places);
};

}  // namespace penstock
