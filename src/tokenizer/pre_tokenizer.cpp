#include "tokenizer/pre_tokenizer.h"

#include <fmt/format.h>
#include <map>
#include <optional>
#include <utility>

#include "tokenizer/unicode.h"

namespace penstock {
namespace {

constexpr const char* supported_pre_tokenizers =
    "one of ByteLevel, Digits, Metaspace, Punctuation, Sequence, Split, Whitespace and WhitespaceSplit";
// That of GPT-2, which ByteLevel has built in.
constexpr const char* words_of_gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* punctuation = R"([!-/:-@\[-`{-~\p{P}])";

template <class Value>
Value word_of(const JsonValue& json, const std::map<std::string_view, Value>& words, const std::string& expected) {
  const auto found = words.find(json.text());
  if (found == words.end()) throw json.refused(expected);
  return found->second;
}

Separator read_separator(const JsonValue& json) {
  return word_of<Separator>(json,
                            {{"Removed", Separator::Removed},
                             {"Isolated", Separator::Isolated},
                             {"MergedWithPrevious", Separator::MergedWithPrevious},
                             {"MergedWithNext", Separator::MergedWithNext},
                             {"Contiguous", Separator::Contiguous}},
                            "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

SplitStep read_split(const JsonValue& json) {
  const JsonValue pattern = json.at("pattern");
  return {pattern.has("String") ? Pattern::of_text(pattern.at("String").text(), pattern.place())
                                : Pattern(pattern.at("Regex").text(), pattern.place()),
          read_separator(json.at("behavior")), json.boolean_or("invert", false)};
}

void add_metaspace(const JsonValue& json, PreTokenizer& pre_tokenizer) {
  MetaspaceStep step;
  step.replacement = json.at("replacement").text();
  if (json.has("prepend_scheme"))
    step.prepend = word_of<PrependScheme>(
        json.at("prepend_scheme"),
        {{"always", PrependScheme::Always}, {"first", PrependScheme::First}, {"never", PrependScheme::Never}},
        "always, first or never");
  else if (!json.boolean_or("add_prefix_space", true))
    step.prepend = PrependScheme::Never;
  const bool splits = json.boolean_or("split", true);
  const Pattern replacement = Pattern::of_text(step.replacement, json.place());
  pre_tokenizer.steps.emplace_back(std::move(step));
  if (splits) pre_tokenizer.steps.emplace_back(SplitStep{replacement, Separator::MergedWithNext});
}

void add_byte_level(const JsonValue& json, PreTokenizer& pre_tokenizer) {
  // The space comes first, then the words, then the bytes.
  if (json.boolean_or("add_prefix_space", true)) pre_tokenizer.steps.emplace_back(ByteLevelStep{true, false});
  if (json.boolean_or("use_regex", true))
    pre_tokenizer.steps.emplace_back(SplitStep{Pattern(words_of_gpt2, json.place()), Separator::Isolated});
  pre_tokenizer.steps.emplace_back(ByteLevelStep{false, true});
}

void add_steps(const JsonValue& json, PreTokenizer& pre_tokenizer) {
  const std::string& type = json.type();
  auto& steps = pre_tokenizer.steps;
  const auto pattern = [&](const char* expression) { return Pattern(expression, json.place()); };
  if (type == "Split") {
    steps.emplace_back(read_split(json));
  } else if (type == "ByteLevel") {
    add_byte_level(json, pre_tokenizer);
  } else if (type == "Metaspace") {
    add_metaspace(json, pre_tokenizer);
  } else if (type == "Digits") {
    const bool each = json.boolean_or("individual_digits", false);
    steps.emplace_back(SplitStep{pattern(each ? R"(\p{N})" : R"(\p{N}+)"), Separator::Isolated});
  } else if (type == "Punctuation") {
    const Separator separator = json.has("behavior") ? read_separator(json.at("behavior")) : Separator::Isolated;
    steps.emplace_back(SplitStep{pattern(punctuation), separator});
  } else if (type == "Whitespace") {
    steps.emplace_back(SplitStep{pattern(R"(\w+|[^\w\s]+)"), Separator::Removed, /*invert=*/true});
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(SplitStep{pattern(R"(\s)"), Separator::Removed});
  } else if (type == "Sequence") {
    json.at("pretokenizers").for_each_element([&](const JsonValue& step) { add_steps(step, pre_tokenizer); });
  } else {
    throw json.unsupported(fmt::format("the pre-tokenizer \"{}\"", shortened(type)), supported_pre_tokenizers);
  }
}

}  // namespace

PreTokenizer read_pre_tokenizer(const JsonValue& json) {
  PreTokenizer pre_tokenizer;
  if (!json.is_null()) add_steps(json, pre_tokenizer);
  // The characters of bytes are looked up by the model, where nothing comes between.
  if (pre_tokenizer.steps.empty()) return pre_tokenizer;
  auto* last = std::get_if<ByteLevelStep>(&pre_tokenizer.steps.back());
  if (last == nullptr || !last->maps_bytes) return pre_tokenizer;
  pre_tokenizer.steps.pop_back();
  for (const PreTokenizerStep& step : pre_tokenizer.steps)
    if (const auto* earlier = std::get_if<ByteLevelStep>(&step); earlier != nullptr && earlier->maps_bytes)
      throw json.unsupported("a second ByteLevel", "one");
  pre_tokenizer.gives_bytes = true;
  return pre_tokenizer;
}

void Words::begin(std::string_view text, bool is_first) {
  text_ = text;
  is_first_ = is_first;
  pieces_.clear();
  if (!text.empty()) pieces_.push_back({0, text.size()});
}

void Words::apply(const PreTokenizer& pre_tokenizer, PatternMatcher& matcher) {
  for (const PreTokenizerStep& step : pre_tokenizer.steps)
    std::visit([&](const auto& known) { apply(known, matcher); }, step);
}

void Words::add(std::size_t begin, std::size_t end) {
  if (begin < end) next_pieces_.push_back({begin, end});
}

void Words::split(const SplitStep& step, Piece piece, PatternMatcher& matcher) {
  const std::string_view text = text_.substr(piece.begin, piece.end - piece.begin);
  const std::size_t first = next_pieces_.size();
  bool before_separates = false;  // the part before
  std::size_t pending = 0;        // where a separator begins that waits for what it is merged with
  bool is_pending = false;
  const auto part = [&](std::size_t begin, std::size_t end, bool separates) {
    if (begin == end) return;
    const std::size_t from = piece.begin + begin;
    const std::size_t to = piece.begin + end;
    const bool has_before = next_pieces_.size() > first;
    switch (step.separator) {
      case Separator::Removed:
        if (!separates) add(from, to);
        break;
      case Separator::Isolated:
        add(from, to);
        break;
      case Separator::MergedWithPrevious:
        if (separates && !before_separates && has_before)
          next_pieces_.back().end = to;
        else
          add(from, to);
        break;
      case Separator::MergedWithNext:
        // If several separators stand in a row, only the last goes with what follows.
        if (is_pending && separates) add(pending, from);
        if (separates)
          pending = from;
        else
          add(is_pending ? pending : from, to);
        is_pending = separates;
        break;
      case Separator::Contiguous:
        if (has_before && before_separates == separates)
          next_pieces_.back().end = to;
        else
          add(from, to);
        break;
    }
    before_separates = separates;
  };
  std::size_t behind = 0;
  for (std::size_t at = 0; at <= text.size();) {
    const std::optional<Piece> match = matcher.find(step.pattern, text, at);
    if (!match) break;
    part(behind, match->begin, step.invert);
    part(match->begin, match->end, !step.invert);
    behind = match->end;
    at = match->end;
    if (match->begin == match->end) at += at < text.size() ? bytes_of_character(text[at]) : 1;
  }
  part(behind, text.size(), step.invert);
  if (is_pending) add(pending, piece.end);
}

void Words::apply(const SplitStep& step, PatternMatcher& matcher) {
  next_pieces_.clear();
  for (const Piece piece : pieces_) split(step, piece, matcher);
  pieces_.swap(next_pieces_);
}

template <class Rewrite>
void Words::rewrite(const Rewrite& rewrite_word) {
  next_text_.clear();
  next_pieces_.clear();
  for (const Piece piece : pieces_) {
    const std::size_t begin = next_text_.size();
    rewrite_word(text_.substr(piece.begin, piece.end - piece.begin), is_first_ && piece.begin == 0);
    add(begin, next_text_.size());
  }
  changed_.swap(next_text_);
  text_ = changed_;
  pieces_.swap(next_pieces_);
}

void Words::apply(const ByteLevelStep& step, PatternMatcher& /*matcher*/) {
  rewrite([&](std::string_view word, bool /*is_first*/) {
    if (step.adds_space && !word.starts_with(' ')) next_text_ += ' ';
    if (step.maps_bytes)
      next_text_ += byte_level_text(word);
    else
      next_text_ += word;
  });
}

void Words::apply(const MetaspaceStep& step, PatternMatcher& /*matcher*/) {
  rewrite([&](std::string_view word, bool is_first) {
    const bool begins_with_it = word.starts_with(' ') || word.starts_with(step.replacement);
    if (!begins_with_it &&
        (step.prepend == PrependScheme::Always || (step.prepend == PrependScheme::First && is_first)))
      next_text_ += step.replacement;
    for (const char letter : word) {
      if (letter == ' ')
        next_text_ += step.replacement;
      else
        next_text_ += letter;
    }
  });
}

}  // namespace penstock
