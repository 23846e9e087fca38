#include "tokenizer/word_cache.h"

#include <algorithm>
#include <cstring>

#include "tokenizer/text_hash.h"

namespace penstock {

bool WordCache::find(std::string_view word, std::vector<TokenId>& into) const {
  if (word.size() > longest_word) return false;
  const std::uint64_t hash = text_hash(word);
  const Place& place = places_[hash % places];
  if (place.hash != hash || place.word_size != word.size() ||
      std::memcmp(place.word.data(), word.data(), word.size()) != 0)
    return false;
  into.insert(into.end(), place.ids.begin(), place.ids.begin() + place.tokens);
  return true;
}

void WordCache::add(std::string_view word, std::span<const TokenId> ids) {
  if (word.empty() || word.size() > longest_word || ids.size() > most_tokens) return;
  const std::uint64_t hash = text_hash(word);
  Place& place = places_[hash % places];
  place.hash = hash;
  place.word_size = static_cast<std::uint8_t>(word.size());
  place.tokens = static_cast<std::uint8_t>(ids.size());
  std::copy(word.begin(), word.end(), place.word.begin());
  std::copy(ids.begin(), ids.end(), place.ids.begin());
}

}  // namespace penstock
