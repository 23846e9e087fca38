#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/unicode.h"

namespace penstock {
namespace {

// Where the last character before `end` begins.
std::size_t begin_of_last(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  return at;
}

bool word_ends_at(std::string_view text, std::size_t end) {
  if (end == 0) return false;
  std::size_t at = begin_of_last(text, end);
  return is_word_character(next_character(text, at));
}

bool word_begins_at(std::string_view text, std::size_t begin) {
  return begin < text.size() && is_word_character(next_character(text, begin));
}

std::size_t without_space_before(std::string_view text, std::size_t end) {
  while (end > 0) {
    const std::size_t begin = begin_of_last(text, end);
    std::size_t at = begin;
    if (!is_white_space(next_character(text, at))) break;
    end = begin;
  }
  return end;
}

std::size_t behind_space(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    std::size_t at = begin;
    if (!is_white_space(next_character(text, at))) break;
    begin = at;
  }
  return begin;
}

constexpr std::uint64_t child(std::uint32_t node, char letter) {
  return std::uint64_t{node} << 8U | static_cast<unsigned char>(letter);
}

}  // namespace

void TokenSearch::add(const AddedToken& token, std::string_view content) {
  if (content.empty()) return;
  begins_token_[static_cast<unsigned char>(content.front())] = true;
  std::uint32_t node = 0;
  for (const char letter : content) {
    const auto [found, is_new] =
        children_.try_emplace(child(node, letter), static_cast<std::uint32_t>(token_of_node_.size()));
    if (is_new) token_of_node_.push_back(nullptr);
    node = found->second;
  }
  if (token_of_node_[node] == nullptr) token_of_node_[node] = &token;
}

std::optional<TokenSearch::Found> TokenSearch::find(std::string_view text, std::size_t from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_token_[static_cast<unsigned char>(text[begin])]) continue;
    Found longest;
    std::uint32_t node = 0;
    for (std::size_t at = begin; at < text.size(); ++at) {
      const auto next = children_.find(child(node, text[at]));
      if (next == children_.end()) break;
      node = next->second;
      if (token_of_node_[node] != nullptr) longest = {begin, at + 1, token_of_node_[node]};
    }
    if (longest.token != nullptr) return longest;
  }
  return std::nullopt;
}

void TokenSearch::sections(std::string_view text, bool with_special, std::vector<Section>& into) const {
  into.clear();
  std::size_t behind = 0;  // the last section
  for (auto found = find(text, 0); found; found = find(text, found->end)) {
    const AddedToken& token = *found->token;
    if (token.special && !with_special) continue;
    if (token.single_word && (word_ends_at(text, found->begin) || word_begins_at(text, found->end))) continue;
    std::size_t begin = found->begin;
    std::size_t end = found->end;
    if (token.strips_left) begin = std::max(without_space_before(text, begin), behind);
    if (token.strips_right) end = behind_space(text, end);
    if (behind < begin) into.push_back({behind, begin, nullptr});
    into.push_back({begin, end, &token});
    behind = end;
  }
  if (behind < text.size()) into.push_back({behind, text.size(), nullptr});
}

}  // namespace penstock
