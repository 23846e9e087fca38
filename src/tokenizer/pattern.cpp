#include "tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <array>
#include <fmt/format.h>
#include <pcre2.h>
#include <utility>

#include "penstock/base/error.h"

#include "tokenizer/expression.h"
#include "tokenizer/unicode.h"

namespace penstock {
namespace {

constexpr std::size_t smallest_stack = std::size_t{32} << 10U;
constexpr std::size_t largest_stack = std::size_t{64} << 20U;

}  // namespace

struct Pattern::Code {
  pcre2_code* compiled = nullptr;
  std::string place;
  bool is_machine_code = false;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  Code(Code&&) = delete;
  Code& operator=(Code&&) = delete;
  ~Code() { pcre2_code_free(compiled); }
};

Pattern::Pattern(const std::string& expression, const std::string& place) {
  const std::string translated = pcre_expression(expression, place);
  auto code = std::make_shared<Code>();
  code->place = place;
  int problem = 0;
  std::size_t offset = 0;
  constexpr std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE;
  code->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &problem,
                                 &offset, nullptr);
  if (code->compiled == nullptr) {
    std::array<unsigned char, 256> reason{};
    pcre2_get_error_message(problem, reason.data(), reason.size());
    throw bad_input(fmt::format("{}: the regular expression \"{}\" cannot be compiled: {}", place,
                                shortened(one_line(expression)), reinterpret_cast<const char*>(reason.data())),
                    "one that PCRE2 understands", "correct the tokenizer");
  }
  code->is_machine_code = pcre2_jit_compile(code->compiled, PCRE2_JIT_COMPLETE) == 0;
  code_ = std::move(code);
}

Pattern Pattern::of_text(std::string_view text, const std::string& place) {
  constexpr std::string_view special = R"(\^$.[]|()?*+{}-#)";
  std::string expression;
  for (const char letter : text) {
    if (special.find(letter) != std::string_view::npos) expression += '\\';
    expression += letter;
  }
  return {expression, place};
}

struct PatternMatcher::Memory {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(smallest_stack, largest_stack, nullptr);

  Memory() {
    if (match == nullptr || context == nullptr) throw std::bad_alloc();
    // Without a stack of its own, a match has 32 KiB of the thread's.
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory(Memory&&) = delete;
  Memory& operator=(Memory&&) = delete;
  ~Memory() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
};

PatternMatcher::PatternMatcher() : memory_(std::make_unique<Memory>()) {}

PatternMatcher::~PatternMatcher() = default;

std::optional<Piece> PatternMatcher::find(const Pattern& pattern, std::string_view text, std::size_t from) {
  const Pattern::Code& code = *pattern.code_;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int found = code.is_machine_code ? pcre2_jit_match(code.compiled, subject, text.size(), from, 0, memory_->match,
                                                           memory_->context)
                                         : pcre2_match(code.compiled, subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                                       memory_->match, memory_->context);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  // 0 says that there are groups beside the match as a whole, which nobody asks for.
  if (found < 0) {
    std::array<unsigned char, 256> reason{};
    pcre2_get_error_message(found, reason.data(), reason.size());
    throw bad_input(fmt::format("{}: the regular expression fails on the text: {}", code.place,
                                reinterpret_cast<const char*>(reason.data())),
                    "an expression that needs less of time and memory", "correct the tokenizer, or leave the text out");
  }
  const std::size_t* ends = pcre2_get_ovector_pointer(memory_->match);
  return Piece{ends[0], ends[1]};
}

std::vector<Piece> all_matches(const Pattern& pattern, std::string_view text, PatternMatcher& matcher) {
  std::vector<Piece> matches;
  std::size_t behind = 0;
  for (std::size_t from = 0; from <= text.size();) {
    const std::optional<Piece> match = matcher.find(pattern, text, from);
    if (!match) break;
    const bool is_empty = match->begin == match->end;
    if (!is_empty || matches.empty() || match->begin != behind) {
      matches.push_back(*match);
      behind = match->end;
    }
    from = match->end;
    if (is_empty) from += from < text.size() ? bytes_of_character(text[from]) : 1;
  }
  return matches;
}

}  // namespace penstock
