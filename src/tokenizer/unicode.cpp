#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

// Where the first byte beyond ASCII stands, or the text's end. Eight bytes at a time: most text is ASCII for long.
std::size_t end_of_ascii(std::string_view text, std::size_t at) {
  constexpr std::uint64_t high_bits = 0x8080808080808080U;
  for (std::uint64_t eight = 0; at + sizeof(eight) <= text.size(); at += sizeof(eight)) {
    std::memcpy(&eight, text.data() + at, sizeof(eight));
    if ((eight & high_bits) != 0) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80U) ++at;
  return at;
}

// Moves `at` behind one character, or behind what is replaced by one U+FFFD.
UChar32 next_or_negative(std::string_view text, std::size_t& at) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  UChar32 character = 0;
  // NOLINTNEXTLINE(bugprone-inc-dec-in-conditions): the macro's own; it is ICU's.
  U8_NEXT(bytes, at, text.size(), character);
  return character;
}

// The `tokenizers` package has the normal forms of Unicode 9: what came later stays as it is.
class Normalizers {
 public:
  Normalizers() {
    UErrorCode problem = U_ZERO_ERROR;
    unicode9_ = icu::UnicodeSet(icu::UnicodeString::fromUTF8("[:age=9.0:]"), problem);
    unicode9_.freeze();
    const std::array<const icu::Normalizer2*, 4> whole{
        icu::Normalizer2::getNFCInstance(problem), icu::Normalizer2::getNFDInstance(problem),
        icu::Normalizer2::getNFKCInstance(problem), icu::Normalizer2::getNFKDInstance(problem)};
    check_invariant(U_SUCCESS(problem), "ICU has its own tables of the normal forms");
    for (const icu::Normalizer2* each : whole) forms_.emplace_back(*each, unicode9_);
  }
  [[nodiscard]] const icu::FilteredNormalizer2& operator[](NormalForm form) const {
    return forms_[static_cast<std::size_t>(form)];
  }

 private:
  icu::UnicodeSet unicode9_;
  std::deque<icu::FilteredNormalizer2> forms_;  // in the order of NormalForm
};

const icu::FilteredNormalizer2& normalizer_of(NormalForm form) {
  static const Normalizers normalizers;
  return normalizers[form];
}

// What bytes look like in a vocabulary, and back.
struct ByteCharacters {
  std::array<std::string, 256> of_byte;
  std::array<int, 512> of_character{};
};

ByteCharacters byte_characters() {
  ByteCharacters characters;
  characters.of_character.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    const char32_t character = printable ? static_cast<char32_t>(byte) : next++;
    append_character(characters.of_byte.at(static_cast<std::size_t>(byte)), character);
    characters.of_character.at(character) = byte;
  }
  return characters;
}

const ByteCharacters& all_byte_characters() {
  static const ByteCharacters characters = byte_characters();
  return characters;
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  for (std::size_t at = end_of_ascii(text, 0); at < text.size();) {
    if (next_or_negative(text, at) < 0) return false;
    if (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80U) at = end_of_ascii(text, at);
  }
  return true;
}

std::string valid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    if (next_or_negative(text, at) < 0)
      valid += replacement_character;
    else
      valid += text.substr(begin, at - begin);
  }
  return valid;
}

char32_t next_character(std::string_view text, std::size_t& at) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  UChar32 character = 0;
  U8_NEXT_UNSAFE(bytes, at, character);
  return static_cast<char32_t>(character);
}

std::size_t bytes_of_character(char first) {
  const auto byte = static_cast<unsigned char>(first);
  if (byte < 0xC0U) return 1;
  if (byte < 0xE0U) return 2;
  return byte < 0xF0U ? 3 : 4;
}

void append_character(std::string& text, char32_t character) {
  std::array<char, 4> bytes{};
  std::size_t size = 0;
  U8_APPEND_UNSAFE(bytes, size, character);
  text.append(bytes.data(), size);
}

bool is_white_space(char32_t character) { return u_isUWhiteSpace(static_cast<UChar32>(character)) != 0; }

bool is_word_character(char32_t character) {
  const auto code = static_cast<UChar32>(character);
  constexpr std::uint32_t kinds = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_isUAlphabetic(code) != 0 || (U_GET_GC_MASK(code) & kinds) != 0 ||
         u_hasBinaryProperty(code, UCHAR_JOIN_CONTROL) != 0;
}

std::string normalised(std::string_view text, NormalForm form) {
  if (end_of_ascii(text, 0) == text.size()) return std::string(text);
  std::string result;
  result.reserve(text.size());
  icu::StringByteSink<std::string> sink(&result);
  UErrorCode problem = U_ZERO_ERROR;
  normalizer_of(form).normalizeUTF8(0, {text.data(), static_cast<std::int32_t>(text.size())}, sink, nullptr, problem);
  check_invariant(U_SUCCESS(problem), "every text has its normal forms");
  return result;
}

std::string lower_case(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const char32_t character = next_character(text, at);
    // The only character whose small form is two.
    if (character == 0x130)
      lower += "i\xCC\x87";
    else
      append_character(lower, static_cast<char32_t>(u_tolower(static_cast<UChar32>(character))));
  }
  return lower;
}

std::string_view character_of_byte(unsigned char byte) { return all_byte_characters().of_byte.at(byte); }

std::string byte_level_text(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const char byte : bytes) text += character_of_byte(static_cast<unsigned char>(byte));
  return text;
}

std::optional<std::string> bytes_of_byte_level(std::string_view text) {
  const ByteCharacters& characters = all_byte_characters();
  std::string bytes;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t character = next_character(text, at);
    const int byte = character < characters.of_character.size() ? characters.of_character.at(character) : -1;
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

}  // namespace penstock
