#include "tokenizer/normalizer.h"

#include <fmt/format.h>
#include <map>
#include <optional>
#include <utility>

namespace penstock {
namespace {

constexpr const char* supported_normalizers =
    "one of NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip and Sequence";

std::string stripped(const StripEnds& strip, std::string_view text) {
  std::size_t begin = 0;
  std::size_t end = strip.right ? 0 : text.size();
  bool in_front = strip.left;
  for (std::size_t at = 0; at < text.size();) {
    const bool white = is_white_space(next_character(text, at));
    if (in_front && white) begin = at;
    if (!white) in_front = false;
    if (!white && strip.right) end = at;
  }
  return begin < end ? std::string(text.substr(begin, end - begin)) : std::string();
}

std::string apply(const NormalizerStep& step, std::string_view text, PatternMatcher& matcher) {
  struct Visitor {
    std::string_view text;
    PatternMatcher& matcher;
    std::string operator()(NormalForm form) const { return normalised(text, form); }
    std::string operator()(const LowerCase& /*lower*/) const { return lower_case(text); }
    std::string operator()(const Prepend& prepend) const {
      return text.empty() ? std::string() : prepend.text + std::string(text);
    }
    std::string operator()(const Replace& replace) const { return replaced(replace, text, matcher); }
    std::string operator()(const StripEnds& strip) const { return stripped(strip, text); }
  };
  return std::visit(Visitor{text, matcher}, step);
}

void add_steps(const JsonValue& json, Normalizer& steps) {
  const std::string& type = json.type();
  static const std::map<std::string_view, NormalForm> forms{{"NFC", NormalForm::Composed},
                                                            {"NFD", NormalForm::Decomposed},
                                                            {"NFKC", NormalForm::CompatibilityComposed},
                                                            {"NFKD", NormalForm::CompatibilityDecomposed}};
  if (const auto form = forms.find(type); form != forms.end())
    steps.emplace_back(form->second);
  else if (type == "Lowercase")
    steps.emplace_back(LowerCase{});
  else if (type == "Prepend")
    steps.emplace_back(Prepend{json.at("prepend").text()});
  else if (type == "Replace")
    steps.emplace_back(read_replace(json));
  else if (type == "Strip")
    steps.emplace_back(StripEnds{json.at("strip_left").boolean(), json.at("strip_right").boolean()});
  else if (type == "Sequence")
    json.at("normalizers").for_each_element([&](const JsonValue& step) { add_steps(step, steps); });
  else
    throw json.unsupported(fmt::format("the normalizer \"{}\"", shortened(type)), supported_normalizers);
}

}  // namespace

Normalizer read_normalizer(const JsonValue& json) {
  Normalizer steps;
  if (!json.is_null()) add_steps(json, steps);
  return steps;
}

Replace read_replace(const JsonValue& json) {
  const JsonValue pattern = json.at("pattern");
  const std::string& content = json.at("content").text();
  if (pattern.has("String")) {
    const std::string& plain = pattern.at("String").text();
    return {plain, Pattern::of_text(plain, pattern.place()), content};
  }
  return {"", Pattern(pattern.at("Regex").text(), pattern.place()), content};
}

std::string replaced(const Replace& replace, std::string_view text, PatternMatcher& matcher) {
  std::string result;
  std::size_t behind = 0;  // the last match
  const auto take = [&](std::size_t begin, std::size_t end) {
    result += text.substr(behind, begin - behind);
    result += replace.content;
    behind = end;
  };
  if (!replace.plain.empty()) {
    for (std::size_t at = text.find(replace.plain); at != std::string_view::npos; at = text.find(replace.plain, behind))
      take(at, at + replace.plain.size());
  } else {
    for (const Piece match : all_matches(replace.pattern, text, matcher)) take(match.begin, match.end);
  }
  result += text.substr(behind);
  return result;
}

std::string normalised(const Normalizer& normalizer, std::string_view text, PatternMatcher& matcher) {
  std::string result(text);
  for (const NormalizerStep& step : normalizer) result = apply(step, result, matcher);
  return result;
}

}  // namespace penstock
