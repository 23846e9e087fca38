/// \file
/// Tokenizers of published models, read from Hugging Face's tokenizer.json: byte-pair encoding, byte-level as GPT-2,
/// Llama 3 and Qwen have it, or of characters as Llama 2 and Mistral have it. Tokens are those of the Python package
/// `tokenizers`. A corpus is documents as one row of tokens, with an index that says what they are and where each
/// begins.
///
///     const penstock::Tokenizer tokenizer = penstock::load_tokenizer("llama/tokenizer.json");
///     const std::vector<penstock::TokenId> tokens = penstock::Encoder(tokenizer).encode("Hello");
///     penstock::write_corpus(tokenizer, {.data = {"books/"}, .output = "corpus"});
///
/// A corpus of the name `corpus` is three files (docs/tokenizers.md has their layout):
/// - `corpus.bin`, the tokens, little-endian uint16, or uint32 where the vocabulary is larger than 65,536;
/// - `corpus.idx`, little-endian uint64: the number of the first token of each document, and at the end that of all
///   tokens;
/// - `corpus.json`, the rest of the index, which is written last: where it is, the corpus is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock {

/// The number of a token.
using TokenId = std::uint32_t;

/// How a text becomes tokens. The defaults are those of the Python package.
struct EncodeOptions {
  /// Add what the tokenizer puts around a text, such as a token that begins it.
  bool add_special_tokens = true;
  /// Take special tokens that are written in the text ("<|endoftext|>") for what they name. Otherwise they are text.
  bool read_special_tokens = true;
  friend bool operator==(const EncodeOptions&, const EncodeOptions&) = default;
};

/// A tokenizer. It never changes, copies share what it knows, and any number of threads may use it.
class Tokenizer {
 public:
  /// What it knows. Only the room itself sees into it.
  struct Parts;

  /// The largest number of a token plus 1: the vocabulary that a network needs.
  [[nodiscard]] std::size_t vocabulary() const;
  /// A token's number, of the vocabulary or an added one; nothing where there is no such token.
  [[nodiscard]] std::optional<TokenId> id_of(std::string_view token) const;
  /// A token as the vocabulary writes it; nothing for a number that no token has.
  [[nodiscard]] std::optional<std::string> token(TokenId id) const;
  /// The token that ends a document, where the tokenizer has one that is known to: see `load_tokenizer`.
  [[nodiscard]] std::optional<TokenId> end_of_document() const;
  /// XXH3 of 128 bits, in hexadecimal digits, of the tokenizer.json: what `xxh128sum` prints.
  [[nodiscard]] const std::string& digest() const;

  /// The text of these tokens. \param skip_special_tokens leaves special tokens out, as the Python package does by
  /// default. Bytes that are no UTF-8 become U+FFFD. \throws Error (BadInput) that names a token beyond the vocabulary.
  [[nodiscard]] std::string decode(std::span<const TokenId> tokens, bool skip_special_tokens = true) const;

  /// For the room itself.
  explicit Tokenizer(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

 private:
  friend class Encoder;
  std::shared_ptr<const Parts> parts_;
};

/// What one thread encodes with: it remembers the words that it has seen. Not thread-safe; each thread has its own.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
  Encoder(Encoder&& other) noexcept;
  Encoder& operator=(Encoder&& other) noexcept;
  ~Encoder();

  /// The tokens of a text of at most 1 GiB. Of bytes that are no UTF-8, each longest sequence that begins a character
  /// is taken for U+FFFD, as Python's `decode(errors="replace")` does.
  /// \throws Error (BadInput) for a longer text.
  [[nodiscard]] std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads a tokenizer from a tokenizer.json or the folder that holds one. The file may be up to 128 MiB large.
///
/// The token that ends a document is the first of these that the vocabulary has: `<|endoftext|>`, `<|end_of_text|>`,
/// `</s>`, `<eos>`, `<|end_of_document|>`; or else the `eos_token` of a tokenizer_config.json beside the file.
///
/// \throws Error (BadInput) that names the file and the path of the value, for what is missing or malformed, and for a
/// model, normalizer, pre-tokenizer, post-processor or decoder that is not supported, by its name.
[[nodiscard]] Tokenizer load_tokenizer(const std::filesystem::path& path);

/// What a corpus is made of.
struct CorpusSettings {
  /// Files, and folders of files as `list_files` takes them. Files that end in .jsonl or .ndjson have a document on
  /// each line, all others are a document each; either may be packed by gzip, and end in .gz too. A document has at
  /// most 256 MiB.
  std::vector<std::filesystem::path> data;
  /// In JSON Lines: the member of each object that is the document.
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
  std::int64_t text_bytes = 0;   ///< of the documents' texts; 0 where the index does not say it
  TokenId end_of_document = 0;   ///< the last token of each document
  std::string tokenizer_digest;  ///< `Tokenizer::digest`
  friend bool operator==(const Corpus&, const Corpus&) = default;
};

/// Makes a corpus, in the order of the files and their lines whatever the number of threads. Each document keeps its
/// end, also an empty one. Nothing is left behind where it fails. The documents in work are held in memory: 3 MiB for
/// each thread, or more where single ones are longer. \param progress is called on the calling thread, after about each
/// MiB.
/// \throws Error (BadInput) for data that cannot be read, a line of JSON without the field (with file and line), gzip
/// that is cut short, a tokenizer without a token that ends a document where the settings name none, and for files of
/// the corpus that are there already; (RunFailed) where it cannot be written.
Corpus write_corpus(const Tokenizer& tokenizer, const CorpusSettings& settings,
                    const std::function<void(const CorpusProgress&)>& progress = {});

/// Reads the index of a corpus: its `.json`. \throws Error (BadInput) for a file that is no index, and for one that the
/// sizes of `corpus.bin` and `corpus.idx` do not fit.
[[nodiscard]] Corpus read_corpus_index(const std::filesystem::path& file);

}  // namespace penstock
