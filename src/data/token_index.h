// What penstock tokenize says beside a file of tokens.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/data/dataset.h"
#include "penstock/tokenizer/tokenizer.h"

namespace penstock {

// The index of a file of tokens: "corpus.json" beside "corpus.bin". Nothing where there is none; a file of that name
// may be another's, such as the texts themselves. Throws Error (BadInput) for one that does not fit to its tokens.
[[nodiscard]] std::optional<Corpus> index_of_tokens(const std::filesystem::path& tokens);

// Tokens16 or Tokens32, where indices say it. \param given by the settings. Throws Error (BadInput) where two indices,
// or an index and the settings, say different things: tokens read with another width are other tokens.
[[nodiscard]] std::optional<DataKind> indexed_kind(const std::vector<std::filesystem::path>& files,
                                                   std::optional<DataKind> given);

}  // namespace penstock
