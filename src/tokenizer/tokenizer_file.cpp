#include "tokenizer/tokenizer_file.h"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>
#include <limits>
#include <string>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/text_limits.h"

#include "tokenizer/expression.h"
#include "tokenizer/json_value.h"
#include "tokenizer/unicode.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

constexpr std::size_t deepest_file = 16;
// Added tokens and what else there is: 2,000 values in a file of Llama 3, 60,000 where there are 6,000 added tokens.
constexpr std::int64_t most_other_values = 300'000;
// Numbers of tokens beyond this may leave holes, as those of added tokens do.
constexpr std::uint64_t most_holes = 65'536;

// Takes the vocabulary and the merges out of the stream of values and builds JSON from the others.
class FileReading : public nlohmann::json_sax<Json> {
 public:
  explicit FileReading(TokenizerFile& file, std::string_view text) : file_(file), text_(text) {}

  bool null() override { return value(Json(nullptr)); }
  bool boolean(bool read) override { return value(Json(read)); }
  bool number_integer(number_integer_t read) override { return value(Json(read)); }
  bool number_float(number_float_t read, const string_t& /*text*/) override { return value(Json(read)); }
  bool binary(binary_t& /*read*/) override { return true; }  // JSON has none

  bool number_unsigned(number_unsigned_t read) override {
    if (!in_vocabulary()) return value(Json(read));
    if (read > most_holes + 4 * file_.vocabulary.size())
      throw bad_input(fmt::format("{} has the number {} after {}", token_place(), read,
                                  counted(static_cast<std::int64_t>(file_.vocabulary.size()), "token")),
                      "numbers without large holes", "correct the tokenizer");
    file_.vocabulary.add(key_, static_cast<TokenId>(read));
    return true;
  }

  bool string(string_t& read) override {
    if (!in_merges()) return value(Json(std::move(read)));
    if (depth_ == merges_depth)
      add_merge(read);
    else
      add_part(read);
    return true;
  }

  bool start_object(std::size_t /*size*/) override {
    // A vocabulary of WordPiece looks the same; which kind it is, is asked later.
    if (depth_ == model_depth && path_is_model() && key_ == "vocab") {
      file_.has_vocabulary = true;
      special_ = Special::Vocabulary;
      return open();
    }
    return container(Json::object());
  }
  bool start_array(std::size_t /*size*/) override {
    if (special_ == Special::Merges && depth_ == merges_depth) {
      parts_ = 0;
      return open();
    }
    if (depth_ == model_depth && path_is_model() && (key_ == "merges" || key_ == "vocab")) {
      special_ = key_ == "merges" ? Special::Merges : Special::Skipped;
      return open();
    }
    return container(Json::array());
  }
  bool end_object() override { return close(); }
  bool end_array() override {
    if (special_ == Special::Merges && depth_ == merges_depth + 1 && parts_ != 2) throw no_merge("two texts");
    return close();
  }

  bool key(string_t& read) override {
    key_ = std::move(read);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*why*/) override {
    const std::size_t at = std::min(position, text_.size());
    throw bad_input(fmt::format("{} line {} is no JSON", file_.source,
                                1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at), '\n')),
                    "a tokenizer.json", "check that the file is whole");
  }

 private:
  enum class Special { None, Vocabulary, Merges, Skipped };
  static constexpr std::size_t model_depth = 2;   // within the file's object and the model's
  static constexpr std::size_t merges_depth = 3;  // within the list of merges too

  [[nodiscard]] bool in_vocabulary() const { return special_ == Special::Vocabulary && depth_ == merges_depth; }
  [[nodiscard]] bool in_merges() const { return special_ == Special::Merges; }
  [[nodiscard]] bool path_is_model() const { return open_.size() == model_depth && in_model_; }

  [[nodiscard]] std::string token_place() const {
    return fmt::format("{}: model.vocab.{}", file_.source, shortened(one_line(key_)));
  }
  [[nodiscard]] Error no_merge(const std::string& expected) const {
    return bad_input(fmt::format("{}: model.merges[{}] is something else", file_.source, file_.merges.size()), expected,
                     "correct the tokenizer");
  }

  void count() {
    if (++values_ > most_other_values)
      throw bad_input(fmt::format("{}: more values than are read beside model.vocab and model.merges", file_.source),
                      fmt::format("at most {}", most_other_values), "check that the file is a tokenizer.json");
  }

  // Puts a value where it belongs, and says where it is.
  Json* place(Json read) {
    count();
    if (open_.empty()) {
      file_.rest = std::move(read);
      return &file_.rest;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(read));
      return &parent.back();
    }
    Json& member = parent[key_];
    member = std::move(read);
    return &member;
  }

  bool value(Json read) {
    if (special_ == Special::Skipped) return true;
    if (special_ == Special::Vocabulary)
      throw bad_input(fmt::format("{} is something else", token_place()), "the whole number of a token",
                      "correct the tokenizer");
    if (special_ == Special::Merges) throw no_merge("a text such as \"a b\" or a list of two");
    place(std::move(read));
    return true;
  }

  bool open() {
    if (++depth_ > deepest_file)
      throw bad_input(fmt::format("{}: more values within values than are read", file_.source),
                      fmt::format("at most {} levels", deepest_file), "check that the file is a tokenizer.json");
    return true;
  }

  bool container(Json read) {
    if (special_ == Special::Vocabulary || special_ == Special::Merges) return value(std::move(read));
    open();
    if (special_ == Special::Skipped) return true;
    if (depth_ == model_depth) in_model_ = key_ == "model" && open_.front()->is_object();
    open_.push_back(place(std::move(read)));
    return true;
  }

  bool close() {
    --depth_;
    if (special_ == Special::None)
      open_.pop_back();
    else if (depth_ == model_depth)
      special_ = Special::None;
    return true;
  }

  void add_merge(std::string_view text) {
    // Files that were made from a merges.txt may keep its first line.
    if (text.starts_with("#version")) return;
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      throw no_merge("two tokens with one space between them");
    parts_ = 0;
    add_part(text.substr(0, space));
    add_part(text.substr(space + 1));
  }

  void add_part(std::string_view text) {
    if (++parts_ > 2) throw no_merge("two texts");
    if (text.empty()) throw no_merge("two texts that are not empty");
    const auto begin = static_cast<std::uint32_t>(file_.merge_texts.size());
    const auto end = static_cast<std::uint32_t>(begin + text.size());
    if (parts_ == 1)
      file_.merges.push_back({begin, end, end});
    else
      file_.merges.back().end = end;
    file_.merge_texts += text;
  }

  TokenizerFile& file_;
  std::string_view text_;
  std::vector<Json*> open_;
  std::string key_;
  std::size_t depth_ = 0;
  std::int64_t values_ = 0;
  int parts_ = 0;
  bool in_model_ = false;
  Special special_ = Special::None;
};

}  // namespace

TokenizerFile read_tokenizer_file(std::string_view text, const std::string& source) {
  TokenizerFile file;
  file.source = source;
  if (!is_valid_utf8(text))
    throw bad_input(source + " holds bytes that are no UTF-8", "a tokenizer.json", "check that the file is whole");
  check_json_gaps(text, source);
  FileReading reading(file, text);
  Json::sax_parse(text, &reading);
  if (!file.rest.is_object()) throw JsonValue(file.rest, source).refused("an object, as every tokenizer.json is");
  return file;
}

}  // namespace penstock
