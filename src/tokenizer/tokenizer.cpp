#include "penstock/tokenizer/tokenizer.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"

#include "tokenizer/parts.h"
#include "tokenizer/unicode.h"

namespace penstock {
namespace {

constexpr std::size_t longest_text = std::size_t{1} << 30U;

}  // namespace

std::size_t Tokenizer::vocabulary() const {
  std::size_t end = parts_->model.vocabulary().end();
  for (const AddedToken& token : parts_->added) end = std::max(end, std::size_t{token.id} + 1);
  return end;
}

std::optional<TokenId> Tokenizer::id_of(std::string_view token) const {
  const auto added = parts_->added_by_content.find(token);
  return added == parts_->added_by_content.end() ? parts_->model.vocabulary().find(token)
                                                 : std::optional(added->second->id);
}

std::optional<std::string> Tokenizer::token(TokenId id) const {
  if (const auto added = parts_->added_by_id.find(id); added != parts_->added_by_id.end())
    return added->second->written;
  const auto text = parts_->model.vocabulary().text_of(id);
  return text ? std::optional<std::string>(*text) : std::nullopt;
}

std::optional<TokenId> Tokenizer::end_of_document() const { return parts_->end_of_document; }

const std::string& Tokenizer::digest() const { return parts_->digest; }

std::string Tokenizer::decode(std::span<const TokenId> tokens, bool skip_special_tokens) const {
  std::vector<std::string> texts;
  texts.reserve(tokens.size());
  for (const TokenId id : tokens) {
    const auto added = parts_->added_by_id.find(id);
    if (added != parts_->added_by_id.end() && added->second->special && skip_special_tokens) continue;
    const auto text = token(id);
    if (!text)
      throw bad_input(fmt::format("the token {} is beyond the vocabulary", id),
                      fmt::format("tokens below {} that the tokenizer has", vocabulary()),
                      "use the tokenizer that the tokens were made with");
    texts.push_back(*text);
  }
  PatternMatcher matcher;
  return decoded(parts_->decoder, std::move(texts), matcher);
}

struct Encoder::State {
  explicit State(std::shared_ptr<const Tokenizer::Parts> known) : parts(std::move(known)) {}

  std::shared_ptr<const Tokenizer::Parts> parts;
  PatternMatcher matcher = {};
  BpeWorkspace workspace = {};
  Words words = {};
  std::vector<Section> sections = {};
  std::vector<Section> inner_sections = {};

  void encode(std::string_view text, bool read_special, std::vector<TokenId>& into) {
    parts->in_text.sections(text, read_special, sections);
    for (const Section& section : sections) {
      if (section.token != nullptr) {
        into.push_back(section.token->id);
        continue;
      }
      const std::string_view between = text.substr(section.begin, section.end - section.begin);
      const bool is_first = section.begin == 0;
      if (parts->normalizer.empty())
        encode_normalised(between, is_first, read_special, into);
      else
        encode_normalised(normalised(parts->normalizer, between, matcher), is_first, read_special, into);
    }
  }

  void encode_normalised(std::string_view text, bool is_first, bool read_special, std::vector<TokenId>& into) {
    parts->in_normalised_text.sections(text, read_special, inner_sections);
    for (const Section& section : inner_sections) {
      if (section.token != nullptr) {
        into.push_back(section.token->id);
        continue;
      }
      words.begin(text.substr(section.begin, section.end - section.begin), is_first && section.begin == 0);
      words.apply(parts->pre_tokenizer, matcher);
      for (std::size_t word = 0; word < words.size(); ++word) parts->model.encode(words[word], workspace, into);
    }
  }
};

Encoder::Encoder(const Tokenizer& tokenizer) : state_(std::make_unique<State>(tokenizer.parts_)) {}
Encoder::Encoder(Encoder&& other) noexcept = default;
Encoder& Encoder::operator=(Encoder&& other) noexcept = default;
Encoder::~Encoder() = default;

std::vector<TokenId> Encoder::encode(std::string_view text, const EncodeOptions& options) {
  if (text.size() > longest_text)
    throw bad_input(fmt::format("a text of {} bytes", text.size()), fmt::format("at most {} bytes", longest_text),
                    "cut it into documents");
  const PostProcessor& around = state_->parts->post_processor;
  std::vector<TokenId> tokens;
  if (options.add_special_tokens) tokens = around.before;
  if (is_valid_utf8(text))
    state_->encode(text, options.read_special_tokens, tokens);
  else
    state_->encode(valid_utf8(text), options.read_special_tokens, tokens);
  if (options.add_special_tokens) tokens.insert(tokens.end(), around.behind.begin(), around.behind.end());
  return tokens;
}

}  // namespace penstock
