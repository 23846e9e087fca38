/// \file
/// A tokenizer.json as it is: its vocabulary and merges apart, which are nearly all of it, and the rest as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/tokenizer/tokenizer.h"

#include "tokenizer/token_table.h"

namespace penstock {

/// What a merge joins: places in `TokenizerFile::merge_texts`.
struct MergeText {
  std::uint32_t left = 0;
  std::uint32_t right = 0;
  std::uint32_t end = 0;
};

struct TokenizerFile {
  std::string source;           ///< as messages name it
  nlohmann::json rest;          ///< an object, without model.vocab and model.merges
  bool has_vocabulary = false;  ///< whether model.vocab is a table of tokens, as that of BPE is
  TokenTable vocabulary;
  std::string merge_texts;
  std::vector<MergeText> merges;  ///< the first of them are done first

  [[nodiscard]] std::string_view left(const MergeText& merge) const {
    return std::string_view(merge_texts).substr(merge.left, merge.right - merge.left);
  }
  [[nodiscard]] std::string_view right(const MergeText& merge) const {
    return std::string_view(merge_texts).substr(merge.right, merge.end - merge.right);
  }
};

/// \param text the file's content, at most 4 GiB. \param source as messages name it. \throws Error (BadInput) for what
/// is no JSON, goes deeper or is more than a tokenizer has, or has other values in a vocabulary of BPE than it should.
[[nodiscard]] TokenizerFile read_tokenizer_file(std::string_view text, const std::string& source);

}  // namespace penstock
