#include "tokenizer/token_table.h"

#include "tokenizer/text_hash.h"

namespace penstock {

std::size_t TokenTable::place_of(std::string_view text) const {
  const std::size_t mask = places_.size() - 1;
  std::size_t place = text_hash(text) & mask;
  while (places_[place] != none && this->text(entries_[places_[place]]) != text) place = (place + 1) & mask;
  return place;
}

void TokenTable::grow() {
  constexpr std::size_t smallest = 16;
  places_.assign(places_.empty() ? smallest : 2 * places_.size(), none);
  for (std::uint32_t entry = 0; entry < entries_.size(); ++entry) places_[place_of(text(entries_[entry]))] = entry;
}

void TokenTable::add(std::string_view text, TokenId id) {
  if (2 * (entries_.size() + 1) > places_.size()) grow();
  const std::size_t place = place_of(text);
  if (places_[place] == none) {
    places_[place] = static_cast<std::uint32_t>(entries_.size());
    entries_.push_back({static_cast<std::uint32_t>(texts_.size()), static_cast<std::uint32_t>(text.size()), id});
    texts_ += text;
  }
  entries_[places_[place]].id = id;
  if (id >= entry_of_id_.size()) entry_of_id_.resize(std::size_t{id} + 1, none);
  entry_of_id_[id] = places_[place];
}

std::optional<TokenId> TokenTable::find(std::string_view text) const {
  if (places_.empty()) return std::nullopt;
  const std::uint32_t entry = places_[place_of(text)];
  if (entry == none) return std::nullopt;
  return entries_[entry].id;
}

std::optional<std::string_view> TokenTable::text_of(TokenId id) const {
  if (id >= entry_of_id_.size() || entry_of_id_[id] == none) return std::nullopt;
  return text(entries_[entry_of_id_[id]]);
}

}  // namespace penstock
