/// \file
/// How a tokenizer cuts a text into words, within which tokens are looked for.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/json_value.h"
#include "tokenizer/pattern.h"

namespace penstock {

/// What becomes of the text that separates.
enum class Separator { Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous };

struct SplitStep {
  Pattern pattern;
  Separator separator = Separator::Isolated;
  bool invert = false;  ///< what matches is what is kept, and what lies between separates
};
struct ByteLevelStep {
  bool adds_space = false;  ///< before each word that does not begin with one
  bool maps_bytes = true;   ///< writes bytes as characters; false where the model takes bytes
};
enum class PrependScheme { Always, First, Never };
struct MetaspaceStep {
  std::string replacement;  ///< of spaces
  PrependScheme prepend = PrependScheme::Always;
};
using PreTokenizerStep = std::variant<SplitStep, ByteLevelStep, MetaspaceStep>;

struct PreTokenizer {
  std::vector<PreTokenizerStep> steps;
  bool gives_bytes = false;  ///< the words are bytes as they are, for a vocabulary of byte-level characters
};

/// \throws Error (BadInput) that names the kind of a pre-tokenizer that is not supported.
[[nodiscard]] PreTokenizer read_pre_tokenizer(const JsonValue& json);

/// A text and its words in order. The text is `changed` where a step has changed it.
class Words {
 public:
  /// \param text has to outlive this. \param is_first whether it begins where the whole text does.
  void begin(std::string_view text, bool is_first);
  void apply(const PreTokenizer& pre_tokenizer, PatternMatcher& matcher);

  [[nodiscard]] std::size_t size() const { return pieces_.size(); }
  [[nodiscard]] std::string_view operator[](std::size_t word) const {
    return text_.substr(pieces_[word].begin, pieces_[word].end - pieces_[word].begin);
  }

 private:
  void apply(const SplitStep& step, PatternMatcher& matcher);
  void apply(const ByteLevelStep& step, PatternMatcher& matcher);
  void apply(const MetaspaceStep& step, PatternMatcher& matcher);
  void split(const SplitStep& step, Piece piece, PatternMatcher& matcher);
  void add(std::size_t begin, std::size_t end);
  // Writes every word anew.
  template <class Rewrite>
  void rewrite(const Rewrite& rewrite_word);

  std::string_view text_;
  bool is_first_ = false;
  std::vector<Piece> pieces_;
  std::vector<Piece> next_pieces_;
  std::string changed_;
  std::string next_text_;
};

}  // namespace penstock
