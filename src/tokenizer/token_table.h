/// \file
/// Tokens by number and by text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/tokenizer/tokenizer.h"

namespace penstock {

/// A vocabulary: texts, all in one string of at most 4 GiB, and a table that finds a text's number. Numbers may have
/// holes between them.
class TokenTable {
 public:
  /// Adds a token. A text that is there already gets the new number; the last of several texts with one number is the
  /// text of it.
  void add(std::string_view text, TokenId id);

  [[nodiscard]] std::optional<TokenId> find(std::string_view text) const;
  /// The text of a number; nothing for a hole and beyond the largest.
  [[nodiscard]] std::optional<std::string_view> text_of(TokenId id) const;
  /// How many texts there are.
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  /// The largest number plus 1; 0 where there is no token.
  [[nodiscard]] std::size_t end() const { return entry_of_id_.size(); }

 private:
  struct Entry {
    std::uint32_t begin = 0;
    std::uint32_t size = 0;
    TokenId id = 0;
  };
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  [[nodiscard]] std::string_view text(const Entry& entry) const {
    return std::string_view(texts_).substr(entry.begin, entry.size);
  }
  // The place of the text in the table, or the empty place where it would go.
  [[nodiscard]] std::size_t place_of(std::string_view text) const;
  void grow();

  std::string texts_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> entry_of_id_;
  std::vector<std::uint32_t> places_;  // entries; a power of two of them, at most half taken
};

}  // namespace penstock
