/// \file
/// What a tokenizer knows.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "penstock/tokenizer/tokenizer.h"

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer_file.h"

namespace penstock {

struct Tokenizer::Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe model;
  PostProcessor post_processor;
  Decoder decoder;
  std::deque<AddedToken> added;  // the others refer to them
  std::unordered_map<std::string_view, const AddedToken*> added_by_content = {};
  std::unordered_map<TokenId, const AddedToken*> added_by_id = {};
  TokenSearch in_text = {};
  TokenSearch in_normalised_text = {};
  std::optional<TokenId> end_of_document = std::nullopt;
  std::string digest = {};
};

/// \param text the content of a tokenizer.json. \param source names it in messages.
[[nodiscard]] std::shared_ptr<Tokenizer::Parts> read_parts(std::string_view text, const std::string& source);

}  // namespace penstock
