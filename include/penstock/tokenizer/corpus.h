/// \file
/// A corpus: documents as one row of tokens, with an index that says what they are and where each document begins.
///
/// A corpus of the name `corpus` is three files (docs/tokenizers.md has their layout):
/// - `corpus.bin`, the tokens, little-endian uint16, or uint32 where the vocabulary is larger than 65,536;
/// - `corpus.idx`, little-endian uint64: the number of the first token of each document, and that of all tokens at the
/// end;
/// - `corpus.json`, the rest of the index, which is written last: where it is, the corpus is whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "penstock/tokenizer/tokenizer.h"

namespace penstock {

/// What a corpus is made of.
struct CorpusSettings {
  /// Files, and folders of files as `list_files` takes them. Files that end in .jsonl or .ndjson have a document on
  /// each line, all others are a document each; either may be packed by gzip, and end in .gz too. A document has at
  /// most 256 MiB.
  std::vector<std::filesystem::path> data;
  /// Of JSON Lines: the member of each object that is the document.
  std::string field = "text";
  /// The corpus's name, without a suffix.
  std::filesystem::path output;
  /// How many threads look for tokens. At least 1.
  int threads = 1;
  EncodeOptions encode;
  /// The token behind each document; nothing stands for the tokenizer's own.
  std::optional<std::string> end_of_document = std::nullopt;
};

/// How far a corpus has come.
struct CorpusProgress {
  std::int64_t bytes_read = 0;   ///< of the files, packed as they are
  std::int64_t bytes_total = 0;  ///< of all files
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
};

/// What the index of a corpus says.
struct Corpus {
  int bytes_per_token = 2;      ///< 2 or 4
  std::int64_t vocabulary = 0;  ///< the largest number that the tokenizer has plus 1
  std::int64_t tokens = 0;      ///< with those that end documents
  std::int64_t documents = 0;
  TokenId end_of_document = 0;   ///< the last token of each document
  std::string tokenizer_digest;  ///< `Tokenizer::digest`
  friend bool operator==(const Corpus&, const Corpus&) = default;
};

/// Makes a corpus, in the order of the files and their lines whatever the number of threads. Each document keeps its
/// end, also an empty one. Nothing is left behind where it fails. The documents in work are held in memory: 3 MiB for
/// each thread, or more where single ones are longer. \param progress is called on the calling thread, after about each
/// MiB.
/// \throws Error (BadInput) for data that cannot be read, a line of JSON without the field (with file and line), gzip
/// that is
///   cut short, a tokenizer without a token that ends a document where the settings name none, and for files of the
///   corpus that are there already; (RunFailed) where it cannot be written.
Corpus write_corpus(const Tokenizer& tokenizer, const CorpusSettings& settings,
                    const std::function<void(const CorpusProgress&)>& progress = {});

/// Reads the index of a corpus: its `.json`. \throws Error (BadInput) for another file, and one that `corpus.bin` and
/// `corpus.idx` do not fit to by their sizes.
[[nodiscard]] Corpus read_corpus_index(const std::filesystem::path& file);

}  // namespace penstock
