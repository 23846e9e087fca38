#include "tokenizer/expression.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fmt/format.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

// PCRE2's own \s takes U+180E too, which has not been white space since Unicode 6.3.
constexpr std::string_view white_space =
    R"(\t-\r\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

// Letters and numbers of Unicode 15 and 16, which the `tokenizers` package knows and PCRE2 10.42 does not.
constexpr std::string_view later_letters =
    R"(\x{1c89}-\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65})"
    R"(\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{1123f}-\x{11240}\x{11380}-\x{11389}\x{1138b}\x{1138e})"
    R"(\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10})"
    R"(\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446}\x{13460}-\x{143fa}\x{16100}-\x{1611d})"
    R"(\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155}\x{1df25}-\x{1df2a}\x{1e030}-\x{1e06d})"
    R"(\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";
constexpr std::string_view later_numbers =
    R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59}\x{16130}-\x{16139})"
    R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3}\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})";

// Names of more than two letters that are no script's: those mean scripts' extensions too in PCRE2, which Oniguruma
// leaves out.
bool is_script(std::string_view name) {
  constexpr std::array<std::string_view, 8> others{"Any",       "Alphabetic", "White_Space", "Lowercase",
                                                   "Uppercase", "Emoji",      "Ideographic", "Extended_Pictographic"};
  return name.size() > 2 && name.find_first_of("=:&") == std::string_view::npos &&
         std::find(others.begin(), others.end(), name) == others.end();
}

class Translation {
 public:
  Translation(std::string_view expression, const std::string& place) : expression_(expression), place_(place) {}

  std::string run() {
    while (at_ < expression_.size()) {
      if (expression_[at_] == '\\')
        escape();
      else if (in_set_)
        in_set();
      else
        outside();
    }
    return std::move(translated_);
  }

 private:
  [[nodiscard]] bool follows(std::string_view text) const { return expression_.substr(at_).starts_with(text); }

  void copy(std::size_t count) {
    translated_ += expression_.substr(at_, count);
    at_ += count;
  }

  [[nodiscard]] Error refused(const std::string& what) const {
    return bad_input(
        fmt::format("{}: {} in the regular expression \"{}\"", place_, what, shortened(one_line(expression_))),
        "what Oniguruma and PCRE2 understand alike", "write the expression without it");
  }

  void set_or_its_opposite(std::string_view members, bool opposite) {
    if (in_set_ && opposite) throw refused(fmt::format("\\{} within a set", expression_[at_ + 1]));
    translated_ += in_set_ ? std::string(members) : fmt::format("[{}{}]", opposite ? "^" : "", members);
    at_ += 2;
  }

  void property() {
    const std::size_t end = expression_.find('}', at_);
    if (!follows("\\p{") && !follows("\\P{")) throw refused("\\p without braces");
    if (end == std::string_view::npos) throw refused("an open brace");
    std::string_view name = expression_.substr(at_ + 3, end - at_ - 3);
    const bool opposite = name.starts_with('^');
    if (opposite) name.remove_prefix(1);
    const std::string known = fmt::format("{}{{{}{}{}}}", expression_.substr(at_, 2), opposite ? "^" : "",
                                          is_script(name) ? "sc:" : "", name);
    const bool excludes = opposite != follows("\\P");
    const std::string_view later = name == "L" ? later_letters : name == "N" ? later_numbers : "";
    at_ = end + 1;
    if (later.empty() || (in_set_ && excludes))
      translated_ += known;
    else if (in_set_)
      translated_ += known + std::string(later);
    else
      translated_ += fmt::format("[{}\\p{{{}}}{}]", excludes ? "^" : "", name, later);
  }

  void escape() {
    if (at_ + 1 >= expression_.size()) throw refused("a backslash at the end");
    const char letter = expression_[at_ + 1];
    switch (letter) {
      case 's':
      case 'S':
        return set_or_its_opposite(white_space, letter == 'S');
      case 'w':
      case 'W':
        return set_or_its_opposite(word, letter == 'W');
      case 'h':
      case 'H':
        return set_or_its_opposite("0-9a-fA-F", letter == 'H');
      case 'p':
      case 'P':
        return property();
      case 'u': {
        const std::string_view digits = expression_.substr(at_ + 2, 4);
        translated_ += fmt::format("\\x{{{}}}", digits);
        at_ += 2 + digits.size();
        return;
      }
      default:
        break;
    }
    // What means the same, and every sign that stands for itself.
    if (std::isalpha(static_cast<unsigned char>(letter)) != 0 &&
        std::string_view("dDnrtfaexAzZbB").find(letter) == std::string_view::npos)
      throw refused(fmt::format("\\{}", letter));
    copy(2);
  }

  void in_set() {
    if (follows("[:")) {
      const std::size_t end = expression_.find(":]", at_);
      if (end == std::string_view::npos) throw refused("an open name of a set");
      copy(end + 2 - at_);
      return;
    }
    if (expression_[at_] == '[') throw refused("a set within a set");
    if (follows("&&")) throw refused("an intersection of sets");
    if (expression_[at_] == ']') in_set_ = false;
    copy(1);
  }

  void outside() {
    if (expression_[at_] == '[') {
      in_set_ = true;
      copy(1);
      if (follows("^")) copy(1);
      if (follows("]")) copy(1);
      return;
    }
    if (follows("(?")) check_flags();
    if (follows("}+") && closes_an_interval()) throw refused("an interval with + behind it");
    copy(1);
  }

  // Ruby's m lets a dot match at lines' ends, and x is not read here.
  void check_flags() const {
    const std::string_view rest = expression_.substr(at_ + 2);
    const std::string_view flags = rest.substr(0, rest.find_first_not_of("imsxadu-"));
    if (flags.find_first_not_of("i-") != std::string_view::npos)
      throw refused(fmt::format("the flags \"{}\"", shortened(flags)));
  }

  [[nodiscard]] bool closes_an_interval() const {
    const std::size_t open = expression_.rfind('{', at_);
    return open != std::string_view::npos && open > 0 && at_ > open + 1 &&
           expression_.substr(open + 1, at_ - open - 1).find_first_not_of("0123456789,") == std::string_view::npos;
  }

  std::string_view expression_;
  const std::string& place_;
  std::string translated_;
  std::size_t at_ = 0;
  bool in_set_ = false;
};

}  // namespace

std::string pcre_expression(std::string_view expression, const std::string& place) {
  return Translation(expression, place).run();
}

std::string one_line(std::string_view text) {
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(),
      [](char letter) { return static_cast<unsigned char>(letter) < ' ' || letter == '\x7f'; }, ' ');
  return line;
}

}  // namespace penstock
