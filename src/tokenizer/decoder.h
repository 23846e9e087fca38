/// \file
/// How tokens become a text again.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tokenizer/json_value.h"
#include "tokenizer/normalizer.h"

namespace penstock {

/// Characters back to the bytes that they stand for.
struct ByteLevelDecoding {};
/// Tokens such as "<0x41>" to their bytes.
struct ByteFallbackDecoding {};
/// All tokens joined to one.
struct Fuse {};
/// Up to so many characters of this kind away at the ends of each token.
struct StripToken {
  char32_t character = U' ';
  std::size_t left = 0;
  std::size_t right = 0;
};
struct MetaspaceDecoding {
  char32_t replacement = U'\u2581';
  bool drops_first = true;  ///< of the first token
};
using DecoderStep = std::variant<ByteLevelDecoding, ByteFallbackDecoding, Fuse, StripToken, MetaspaceDecoding, Replace>;

/// The steps in their order; nothing where the tokenizer has no decoder, and tokens are joined by spaces.
using Decoder = std::optional<std::vector<DecoderStep>>;

/// \throws Error (BadInput) that names the kind of a decoder that is not supported.
[[nodiscard]] Decoder read_decoder(const JsonValue& json);

/// The text of these tokens.
[[nodiscard]] std::string decoded(const Decoder& decoder, std::vector<std::string> tokens, PatternMatcher& matcher);

}  // namespace penstock
