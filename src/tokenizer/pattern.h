/// \file
/// The regular expressions of tokenizers, which are written for Oniguruma, by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

/// Begin and end in bytes.
struct Piece {
  std::size_t begin = 0;
  std::size_t end = 0;
  friend bool operator==(const Piece&, const Piece&) = default;
};

/// A compiled expression. Any number of threads may use it, each with a `PatternMatcher` of its own.
class Pattern {
 public:
  /// \param place names the expression in messages. \throws Error (BadInput) for what is no expression, and for what
  /// Oniguruma and PCRE2 understand differently.
  Pattern(const std::string& expression, const std::string& place);
  /// One that matches this text alone.
  [[nodiscard]] static Pattern of_text(std::string_view text, const std::string& place);

 private:
  friend class PatternMatcher;
  struct Code;
  std::shared_ptr<const Code> code_;
};

/// What one thread matches with. It may be used for every pattern, and not by two threads at once.
class PatternMatcher {
 public:
  PatternMatcher();
  PatternMatcher(const PatternMatcher&) = delete;
  PatternMatcher& operator=(const PatternMatcher&) = delete;
  PatternMatcher(PatternMatcher&&) = delete;
  PatternMatcher& operator=(PatternMatcher&&) = delete;
  ~PatternMatcher();

  /// The first match that begins at `from` or behind; nothing where there is none. \param text is valid UTF-8.
  /// \throws Error (BadInput) where the expression takes too long on the text.
  [[nodiscard]] std::optional<Piece> find(const Pattern& pattern, std::string_view text, std::size_t from);

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

/// Every match from the beginning on, none over another. An empty one right behind another counts as none.
[[nodiscard]] std::vector<Piece> all_matches(const Pattern& pattern, std::string_view text, PatternMatcher& matcher);

}  // namespace penstock
