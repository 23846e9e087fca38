#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <functional>
#include <utility>

#include "tokenizer/expression.h"
#include "tokenizer/unicode.h"

namespace penstock {
namespace {

// Up to here it is faster to look at all pairs for each merge than to keep a heap of them.
constexpr std::size_t longest_short_word = 48;

// U+2581, which stands for a space in the vocabularies of SentencePiece.
constexpr std::string_view lower_block = "\xE2\x96\x81";

}  // namespace

MergeTable::MergeTable(std::size_t merges) {
  const std::size_t places = std::bit_ceil(2 * merges + 2);
  places_.resize(places);
  mask_ = places - 1;
  shift_ = 64U - static_cast<unsigned>(std::countr_zero(places));
}

void MergeTable::add(TokenId left, TokenId right, Merge merge) {
  const std::uint64_t pair = std::uint64_t{left} << 32U | right;
  std::size_t place = place_of(pair);
  while (places_[place].pair != no_pair && places_[place].pair != pair) place = (place + 1) & mask_;
  places_[place] = {pair, merge};
}

Bpe::Bpe(TokenizerFile file, bool takes_bytes) : merges_(file.merges.size()), takes_bytes_(takes_bytes) {
  const JsonValue model = JsonValue(file.rest, file.source).at("model");
  // Early files do not say the type.
  if (const std::string type = model.text_or("type", file.merges.empty() ? "" : "BPE"); type != "BPE")
    throw model.unsupported(fmt::format("the model \"{}\"", shortened(one_line(type))), "BPE");
  if (!file.has_vocabulary)
    throw bad_input(model.place() + " has no vocab", "an object of tokens and their numbers", "correct the tokenizer");
  vocabulary_ = std::move(file.vocabulary);
  read_settings(model);
  for (unsigned byte = 0; byte < id_of_byte_.size(); ++byte) {
    const std::string plain(1, static_cast<char>(byte));
    if (takes_bytes_)
      id_of_byte_.at(byte) = vocabulary_.find(character_of_byte(static_cast<unsigned char>(byte)));
    else if (byte < 0x80U)
      id_of_byte_.at(byte) = vocabulary_.find(plain);
  }
  if (takes_bytes_ && ignores_merges_) {
    for (TokenId id = 0; id < vocabulary_.end(); ++id) {
      const auto text = vocabulary_.text_of(id);
      const auto bytes = text ? bytes_of_byte_level(*text) : std::nullopt;
      if (bytes) bytes_.add(*bytes, id);
    }
  }
  add_merges(file);
  find_word_begin(file);
}

void Bpe::read_settings(const JsonValue& json) {
  // Dropout leaves merges out by chance, so that a text has many encodings.
  if (json.has("dropout") && json.at("dropout").number() != 0) throw json.at("dropout").refused("null or 0");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!json.text_or(affix, "").empty())
      throw json.at(affix).unsupported("such a prefix or suffix",
                                       "none, as byte-level and SentencePiece's models have");
  ignores_merges_ = json.boolean_or("ignore_merges", false);
  fuses_unknown_ = json.boolean_or("fuse_unk", false);
  if (json.has("unk_token")) {
    unknown_ = vocabulary_.find(json.at("unk_token").text());
    if (!unknown_) throw json.at("unk_token").refused("a token of the vocabulary");
  }
  has_fallback_ = json.boolean_or("byte_fallback", false);
  if (!has_fallback_) return;
  for (unsigned byte = 0; byte < fallback_.size(); ++byte) {
    const auto found = vocabulary_.find(fmt::format("<0x{:02X}>", byte));
    falls_back_.at(byte) = found.has_value();
    fallback_.at(byte) = found.value_or(0);
  }
}

void Bpe::add_merges(const TokenizerFile& file) {
  std::string joined;
  for (std::uint32_t rank = 0; rank < file.merges.size(); ++rank) {
    const std::string_view left = file.left(file.merges[rank]);
    const std::string_view right = file.right(file.merges[rank]);
    joined.assign(left).append(right);
    const auto known = [&](std::string_view text) {
      const auto id = vocabulary_.find(text);
      if (!id)
        throw bad_input(fmt::format("{}: model.merges[{}] has the token \"{}\", which is beyond the vocabulary",
                                    file.source, rank, shortened(one_line(text))),
                        "tokens of model.vocab", "correct the tokenizer");
      return *id;
    };
    merges_.add(known(left), known(right), {rank, known(joined)});
  }
}

// A text without words is one long word to its model. Where no merge makes a token that goes on with U+2581 behind
// another character, none ever goes over such a place: the words between them give the same tokens, and can be
// remembered.
void Bpe::find_word_begin(const TokenizerFile& file) {
  if (takes_bytes_ || !vocabulary_.find(lower_block)) return;
  std::string joined;
  for (const MergeText& merge : file.merges) {
    joined.assign(file.left(merge)).append(file.right(merge));
    std::size_t at = joined.find(lower_block, 1);
    while (at != std::string::npos &&
           joined.compare(at - std::min(at, lower_block.size()), lower_block.size(), lower_block) == 0)
      at = joined.find(lower_block, at + 1);
    if (at != std::string::npos) return;
  }
  word_begin_ = lower_block;
}

std::optional<TokenId> Bpe::find_whole(std::string_view word) const {
  return takes_bytes_ ? bytes_.find(word) : vocabulary_.find(word);
}

void Bpe::encode(std::string_view word, BpeWorkspace& workspace, std::vector<TokenId>& into) const {
  if (word.empty()) return;
  if (ignores_merges_ || word_begin_.empty()) {
    encode_part(word, workspace, into);
    return;
  }
  std::size_t begin = 0;
  for (std::size_t at = word.find(word_begin_, 1); at != std::string_view::npos; at = word.find(word_begin_, at + 1)) {
    if (word.substr(0, at).ends_with(word_begin_)) continue;
    encode_part(word.substr(begin, at - begin), workspace, into);
    begin = at;
  }
  encode_part(word.substr(begin), workspace, into);
}

void Bpe::encode_part(std::string_view word, BpeWorkspace& workspace, std::vector<TokenId>& into) const {
  if (workspace.seen.find(word, into)) return;
  const std::size_t before = into.size();
  if (const auto whole = ignores_merges_ ? find_whole(word) : std::nullopt) {
    into.push_back(*whole);
  } else {
    workspace.ids.clear();
    begin_symbols(word, workspace.ids);
    if (workspace.ids.size() > longest_short_word)
      merge_long(workspace);
    else
      merge_short(workspace);
    into.insert(into.end(), workspace.ids.begin(), workspace.ids.end());
  }
  workspace.seen.add(word, std::span<const TokenId>(into).subspan(before));
}

void Bpe::begin_symbols(std::string_view word, std::vector<TokenId>& ids) const {
  std::size_t unknown = 0;  // characters that wait to become the unknown token
  const auto flush = [&] {
    if (unknown > 0) ids.insert(ids.end(), fuses_unknown_ ? 1 : unknown, *unknown_);
    unknown = 0;
  };
  for (std::size_t at = 0; at < word.size();) {
    const auto first = static_cast<unsigned char>(word[at]);
    const std::size_t size = takes_bytes_ ? 1 : bytes_of_character(word[at]);
    const std::string_view character = word.substr(at, size);
    at += size;
    const std::optional<TokenId> known = size == 1 ? id_of_byte_[first] : vocabulary_.find(character);
    if (known) {
      flush();
      ids.push_back(*known);
      continue;
    }
    const std::string_view bytes = takes_bytes_ ? character_of_byte(first) : character;
    const auto falls_back = [&](char byte) { return falls_back_[static_cast<unsigned char>(byte)]; };
    // What waits stays waiting, as it does in the `tokenizers` package.
    if (has_fallback_ && std::all_of(bytes.begin(), bytes.end(), falls_back))
      for (const char byte : bytes) ids.push_back(fallback_[static_cast<unsigned char>(byte)]);
    else if (unknown_)
      ++unknown;
  }
  flush();
}

void Bpe::merge_short(BpeWorkspace& workspace) const {
  auto& symbols = workspace.symbols;
  symbols.clear();
  for (const TokenId id : workspace.ids) symbols.push_back({id});
  const auto set_rank = [&](std::size_t place) {
    symbols[place].rank =
        place + 1 < symbols.size() ? rank_of(symbols[place].id, symbols[place + 1].id) : Merge::no_rank;
  };
  for (std::size_t place = 0; place + 1 < symbols.size(); ++place) set_rank(place);
  while (symbols.size() > 1) {
    const auto best =
        std::min_element(symbols.begin(), symbols.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
    if (best->rank == Merge::no_rank) break;
    const auto place = static_cast<std::size_t>(best - symbols.begin());
    symbols[place].id = merges_.find(symbols[place].id, symbols[place + 1].id).id;
    symbols.erase(best + 1);
    set_rank(place);
    if (place > 0) set_rank(place - 1);
  }
  workspace.ids.clear();
  for (const auto& symbol : symbols) workspace.ids.push_back(symbol.id);
}

void Bpe::merge_long(BpeWorkspace& workspace) const {
  constexpr std::uint32_t no_place = BpeWorkspace::no_place;
  auto& linked = workspace.linked;
  auto& waiting = workspace.waiting;
  const auto count = static_cast<std::uint32_t>(workspace.ids.size());
  linked.clear();
  for (std::uint32_t place = 0; place < count; ++place)
    linked.push_back({workspace.ids[place], Merge::no_rank, place > 0 ? place - 1 : no_place,
                      place + 1 < count ? place + 1 : no_place});
  waiting.clear();
  const auto set_rank = [&](std::uint32_t place) {
    auto& symbol = linked[place];
    symbol.rank = symbol.behind == no_place ? Merge::no_rank : rank_of(symbol.id, linked[symbol.behind].id);
    if (symbol.rank == Merge::no_rank) return false;
    waiting.push_back({symbol.rank, place});
    return true;
  };
  for (std::uint32_t place = 0; place < count; ++place) set_rank(place);
  std::make_heap(waiting.begin(), waiting.end(), std::greater<>());
  while (!waiting.empty()) {
    std::pop_heap(waiting.begin(), waiting.end(), std::greater<>());
    const BpeWorkspace::Waiting next = waiting.back();
    waiting.pop_back();
    auto& symbol = linked[next.place];
    if (symbol.rank != next.rank) continue;  // it has changed since
    auto& gone = linked[symbol.behind];
    symbol.id = merges_.find(symbol.id, gone.id).id;
    gone.rank = Merge::no_rank;
    symbol.behind = gone.behind;
    if (gone.behind != no_place) linked[gone.behind].before = next.place;
    if (set_rank(next.place)) std::push_heap(waiting.begin(), waiting.end(), std::greater<>());
    if (symbol.before != no_place && set_rank(symbol.before))
      std::push_heap(waiting.begin(), waiting.end(), std::greater<>());
  }
  workspace.ids.clear();
  for (std::uint32_t place = count > 0 ? 0 : no_place; place != no_place; place = linked[place].behind)
    workspace.ids.push_back(linked[place].id);
}

}  // namespace penstock
