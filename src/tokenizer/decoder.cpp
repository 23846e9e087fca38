#include "tokenizer/decoder.h"

#include <charconv>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <utility>

#include "tokenizer/unicode.h"

namespace penstock {
namespace {

using Tokens = std::vector<std::string>;

constexpr const char* supported_decoders =
    "one of ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Sequence and Strip";

std::string joined(const Tokens& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

Tokens decode(const ByteLevelDecoding& /*step*/, const Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += bytes_of_byte_level(token).value_or(token);
  return {valid_utf8(bytes)};
}

std::optional<char> byte_of(const std::string& token) {
  constexpr std::size_t size = 6;  // <0x41>
  if (token.size() != size || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  unsigned byte = 0;
  const char* end = token.data() + size - 1;
  if (std::from_chars(token.data() + 3, end, byte, 16).ptr != end) return std::nullopt;
  return static_cast<char>(byte);
}

Tokens decode(const ByteFallbackDecoding& /*step*/, const Tokens& tokens) {
  Tokens result;
  std::string bytes;
  // A row of bytes is a text as a whole, or each of them is none.
  const auto flush = [&] {
    if (is_valid_utf8(bytes)) {
      if (!bytes.empty()) result.push_back(bytes);
    } else {
      result.insert(result.end(), bytes.size(), std::string(replacement_character));
    }
    bytes.clear();
  };
  for (const std::string& token : tokens) {
    if (const auto byte = byte_of(token)) {
      bytes += *byte;
      continue;
    }
    flush();
    result.push_back(token);
  }
  flush();
  return result;
}

Tokens decode(const Fuse& /*step*/, const Tokens& tokens) { return {joined(tokens)}; }

Tokens decode(const StripToken& step, Tokens tokens) {
  std::string stripped;
  append_character(stripped, step.character);
  for (std::string& token : tokens) {
    for (std::size_t left = 0; left < step.left && token.starts_with(stripped); ++left) token.erase(0, stripped.size());
    for (std::size_t right = 0; right < step.right && token.ends_with(stripped); ++right)
      token.resize(token.size() - stripped.size());
  }
  return tokens;
}

Tokens decode(const MetaspaceDecoding& step, Tokens tokens) {
  bool is_first = true;
  for (std::string& token : tokens) {
    std::string text;
    for (std::size_t at = 0; at < token.size();) {
      const char32_t character = next_character(token, at);
      if (character != step.replacement)
        append_character(text, character);
      else if (!is_first || !step.drops_first)
        text += ' ';
    }
    token = std::move(text);
    is_first = false;
  }
  return tokens;
}

char32_t only_character(const JsonValue& json) {
  const std::string& text = json.text();
  std::size_t at = 0;
  const char32_t character = text.empty() ? 0 : next_character(text, at);
  if (text.empty() || at != text.size()) throw json.refused("one character");
  return character;
}

void add_steps(const JsonValue& json, std::vector<DecoderStep>& steps) {
  constexpr std::uint64_t most_stripped = 1'000'000;
  const std::string& type = json.type();
  if (type == "ByteLevel") {
    steps.emplace_back(ByteLevelDecoding{});
  } else if (type == "ByteFallback") {
    steps.emplace_back(ByteFallbackDecoding{});
  } else if (type == "Fuse") {
    steps.emplace_back(Fuse{});
  } else if (type == "Strip") {
    steps.emplace_back(StripToken{only_character(json.at("content")),
                                  static_cast<std::size_t>(json.at("start").whole_number(most_stripped)),
                                  static_cast<std::size_t>(json.at("stop").whole_number(most_stripped))});
  } else if (type == "Metaspace") {
    const bool prepends = json.has("prepend_scheme") ? json.at("prepend_scheme").text() != "never"
                                                     : json.boolean_or("add_prefix_space", true);
    steps.emplace_back(MetaspaceDecoding{only_character(json.at("replacement")), prepends});
  } else if (type == "Replace") {
    steps.emplace_back(read_replace(json));
  } else if (type == "Sequence") {
    json.at("decoders").for_each_element([&](const JsonValue& step) { add_steps(step, steps); });
  } else {
    throw json.unsupported(fmt::format("the decoder \"{}\"", shortened(type)), supported_decoders);
  }
}

}  // namespace

Decoder read_decoder(const JsonValue& json) {
  if (json.is_null()) return std::nullopt;
  std::vector<DecoderStep> steps;
  add_steps(json, steps);
  return steps;
}

std::string decoded(const Decoder& decoder, std::vector<std::string> tokens, PatternMatcher& matcher) {
  if (!decoder) return fmt::format("{}", fmt::join(tokens, " "));
  for (const DecoderStep& step : *decoder) {
    if (const auto* replace = std::get_if<Replace>(&step)) {
      for (std::string& token : tokens) token = replaced(*replace, token, matcher);
      continue;
    }
    tokens = std::visit(
        [&](const auto& known) -> Tokens {
          if constexpr (std::is_same_v<std::remove_cvref_t<decltype(known)>, Replace>)
            return tokens;
          else
            return decode(known, tokens);
        },
        step);
  }
  return joined(tokens);
}

}  // namespace penstock
