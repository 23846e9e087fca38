/// \file
/// Data as a published model reads it: token files made with its tokenizer, or texts that go through it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <vector>

#include "penstock/data/dataset.h"
#include "penstock/tokenizer/tokenizer.h"

namespace penstock {

/// Opens data as `open_data` does, but as tokens of the model in `folder`. Token files with an index (penstock
/// tokenize) are read as that says; texts go through the tokenizer of the folder first, into temporary files.
/// \param folder with tokenizer.json, and config.json where the tokenizer has no token that ends a document.
/// \param vocabulary of the model: what the description says, and more than any token.
/// \throws Error (BadInput) for images, for tokens beyond the vocabulary, for a corpus of another tokenizer, and for
/// texts if no token is known to end a document.
[[nodiscard]] Data open_tokenized(const DataSettings& settings, const std::filesystem::path& folder,
                                  std::int64_t vocabulary);

/// The tokens that end a text which the model continues: the one that ends documents, and those that
/// generation_config.json and config.json name (`eos_token_id`, one or a list).
[[nodiscard]] std::set<TokenId> stop_tokens(const Tokenizer& tokenizer, const std::filesystem::path& folder);

/// The token with which documents end: the tokenizer of the folder names it, or its config.json (`eos_token_id`), or
/// the index of the first token file in `paths`; nothing if none of them does.
[[nodiscard]] std::optional<std::int64_t> end_of_documents(const std::vector<std::filesystem::path>& paths,
                                                           const std::filesystem::path& folder);

}  // namespace penstock
