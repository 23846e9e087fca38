/// \file
/// Tokenizers of published models, read from Hugging Face's tokenizer.json: byte-pair encoding, byte-level as GPT-2,
/// Llama 3 and Qwen have it, or of characters as Llama 2 and Mistral have it. Tokens are those of the Python package
/// `tokenizers`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
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

  /// Of the room itself.
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

/// Reads a tokenizer from a tokenizer.json or the folder that holds one. The file may have 128 MiB.
///
/// The token that ends a document is the first of these that the vocabulary has: `<|endoftext|>`, `<|end_of_text|>`,
/// `</s>`, `<eos>`, `<|end_of_document|>`; or else the `eos_token` of a tokenizer_config.json beside the file.
///
/// \throws Error (BadInput) that names the file and the path of the value, for what is missing or malformed, and for a
/// model, normalizer, pre-tokenizer, post-processor or decoder that is not supported, by its name.
[[nodiscard]] Tokenizer load_tokenizer(const std::filesystem::path& path);

}  // namespace penstock
