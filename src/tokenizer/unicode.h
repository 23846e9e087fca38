/// \file
/// What tokenizers ask of Unicode. Texts are UTF-8; apart from `is_valid_utf8` and `valid_utf8`, all functions expect
/// valid UTF-8.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

/// The bytes of U+FFFD, which stands for bytes that are no UTF-8.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

[[nodiscard]] bool is_valid_utf8(std::string_view text);

/// The text with U+FFFD in place of each longest sequence of bytes that begins a character and does not end it, as
/// Unicode recommends (section 3.9) and Python's `decode(errors="replace")` does.
[[nodiscard]] std::string valid_utf8(std::string_view text);

/// The character that begins at `at`; moves `at` behind it.
[[nodiscard]] char32_t next_character(std::string_view text, std::size_t& at);
/// How many bytes the character has that begins with this byte.
[[nodiscard]] std::size_t bytes_of_character(char first);
void append_character(std::string& text, char32_t character);

/// The property White_Space.
[[nodiscard]] bool is_white_space(char32_t character);
/// What `\w` stands for: letters, marks, decimal digits, connecting punctuation and joiners.
[[nodiscard]] bool is_word_character(char32_t character);

enum class NormalForm { Composed, Decomposed, CompatibilityComposed, CompatibilityDecomposed };
[[nodiscard]] std::string normalised(std::string_view text, NormalForm form);
/// Character by character, regardless of what stands around it.
[[nodiscard]] std::string lower_case(std::string_view text);

/// The printable character that stands for a byte in the vocabularies of byte-level tokenizers: the byte itself where
/// it is printable in Latin-1, otherwise one from U+0100 on.
[[nodiscard]] std::string_view character_of_byte(unsigned char byte);
/// The bytes, each as its printable character.
[[nodiscard]] std::string byte_level_text(std::string_view bytes);
/// The bytes that the characters stand for, or nothing where one of the characters stands for none.
[[nodiscard]] std::optional<std::string> bytes_of_byte_level(std::string_view text);

}  // namespace penstock
