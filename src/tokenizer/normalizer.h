/// \file
/// What a tokenizer does to a text before it looks at it.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/json_value.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"

namespace penstock {

struct LowerCase {};
/// Puts a text before each text that is not empty.
struct Prepend {
  std::string text;
};
struct Replace {
  std::string plain;  ///< what is replaced, where it is no expression
  Pattern pattern;    ///< the same as an expression
  std::string content;
};
/// Takes white space away at the ends.
struct StripEnds {
  bool left = false;
  bool right = false;
};
using NormalizerStep = std::variant<NormalForm, LowerCase, Prepend, Replace, StripEnds>;

/// The steps in their order.
using Normalizer = std::vector<NormalizerStep>;

/// \throws Error (BadInput) that names the kind of a normalizer that is not supported, and the path of a value that is
/// not what it should be.
[[nodiscard]] Normalizer read_normalizer(const JsonValue& json);

/// "Replace" of normalizers and decoders.
[[nodiscard]] Replace read_replace(const JsonValue& json);
[[nodiscard]] std::string replaced(const Replace& replace, std::string_view text, PatternMatcher& matcher);

/// The text after all steps.
[[nodiscard]] std::string normalised(const Normalizer& normalizer, std::string_view text, PatternMatcher& matcher);

}  // namespace penstock
