/// \file
/// Byte-pair encoding: a word's characters, or bytes, joined in the order of the merges.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/json_value.h"
#include "tokenizer/token_table.h"
#include "tokenizer/tokenizer_file.h"
#include "tokenizer/word_cache.h"

namespace penstock {

/// What a pair of tokens becomes. No pair: `rank` is `no_rank`.
struct Merge {
  static constexpr std::uint32_t no_rank = ~std::uint32_t{0};
  std::uint32_t rank = no_rank;
  TokenId id = 0;
};

/// Merges by their pair: an open table, at most half full.
class MergeTable {
 public:
  explicit MergeTable(std::size_t merges);
  /// A pair that is there already gets the new merge.
  void add(TokenId left, TokenId right, Merge merge);
  [[nodiscard]] Merge find(TokenId left, TokenId right) const {
    const std::uint64_t pair = std::uint64_t{left} << 32U | right;
    for (std::size_t place = place_of(pair);; place = (place + 1) & mask_) {
      if (places_[place].pair == pair) return places_[place].merge;
      if (places_[place].pair == no_pair) return {};
    }
  }

 private:
  static constexpr std::uint64_t no_pair = ~std::uint64_t{0};
  struct Place {
    std::uint64_t pair = no_pair;
    Merge merge;
  };
  [[nodiscard]] std::size_t place_of(std::uint64_t pair) const {
    constexpr std::uint64_t golden = 0x9E3779B97F4A7C15U;
    return static_cast<std::size_t>((pair * golden) >> shift_);
  }
  std::vector<Place> places_;
  std::size_t mask_ = 0;
  unsigned shift_ = 0;
};

/// What one thread merges with: the words that it has seen, and room to work in.
struct BpeWorkspace {
  static constexpr std::uint32_t no_place = ~std::uint32_t{0};
  struct Symbol {
    TokenId id = 0;
    std::uint32_t rank = Merge::no_rank;  ///< of the merge with the one behind
  };
  struct Linked {
    TokenId id = 0;
    std::uint32_t rank = Merge::no_rank;
    std::uint32_t before = no_place;
    std::uint32_t behind = no_place;
  };
  struct Waiting {
    std::uint32_t rank = 0;
    std::uint32_t place = 0;
    friend auto operator<=>(const Waiting&, const Waiting&) = default;
  };
  WordCache seen;
  std::vector<TokenId> ids;
  std::vector<Symbol> symbols;
  std::vector<Linked> linked;
  std::vector<Waiting> waiting;
};

/// A model of the kind "BPE". Any number of threads may use it, each with a workspace of its own.
class Bpe {
 public:
  /// \param takes_bytes whether words are bytes, for which the vocabulary has printable characters.
  /// \throws Error (BadInput) for another kind of model, which is named, and for a merge whose tokens are not in the
  /// vocabulary.
  Bpe(TokenizerFile file, bool takes_bytes);

  /// Adds the tokens of a word of at most 4 GiB. \param into gets them at its end.
  void encode(std::string_view word, BpeWorkspace& workspace, std::vector<TokenId>& into) const;

  [[nodiscard]] const TokenTable& vocabulary() const { return vocabulary_; }

 private:
  void read_settings(const JsonValue& json);
  void add_merges(const TokenizerFile& file);
  void find_word_begin(const TokenizerFile& file);
  void encode_part(std::string_view word, BpeWorkspace& workspace, std::vector<TokenId>& into) const;
  void begin_symbols(std::string_view word, std::vector<TokenId>& ids) const;
  void merge_short(BpeWorkspace& workspace) const;
  void merge_long(BpeWorkspace& workspace) const;
  [[nodiscard]] std::uint32_t rank_of(TokenId left, TokenId right) const { return merges_.find(left, right).rank; }
  // The whole word, as the vocabulary has it.
  [[nodiscard]] std::optional<TokenId> find_whole(std::string_view word) const;

  TokenTable vocabulary_;
  TokenTable bytes_;  // the vocabulary by the bytes that its characters stand for, where words are bytes
  MergeTable merges_;
  bool takes_bytes_ = false;
  bool ignores_merges_ = false;
  bool fuses_unknown_ = false;
  std::optional<TokenId> unknown_;
  std::array<std::optional<TokenId>, 256> id_of_byte_{};  // of a word's byte
  std::array<TokenId, 256> fallback_{};                   // "<0x00>" … "<0xFF>"
  bool has_fallback_ = false;
  std::array<bool, 256> falls_back_{};
  std::string word_begin_;  // no token goes over a place before this, apart from those of nothing else; may be empty
};

}  // namespace penstock
