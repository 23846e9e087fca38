#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <limits>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/text_limits.h"

#include "tokenizer/expression.h"
#include "tokenizer/parts.h"
#include "tokenizer/text_hash.h"
#include "tokenizer/unicode.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t longest_tokenizer = std::int64_t{128} << 20U;
constexpr std::int64_t longest_configuration = std::int64_t{16} << 20U;
const nlohmann::json nothing = nullptr;

JsonValue member_or_null(const JsonValue& json, std::string_view key) {
  return json.has(key) ? json.at(key) : JsonValue(nothing, json.source(), std::string(key));
}

AddedToken read_added(const JsonValue& json) {
  return {json.at("content").text(),
          static_cast<TokenId>(json.at("id").whole_number(std::numeric_limits<std::int32_t>::max() - 1)),
          json.boolean_or("single_word", false),
          json.boolean_or("lstrip", false),
          json.boolean_or("rstrip", false),
          json.boolean_or("normalized", !json.boolean_or("special", false)),
          json.boolean_or("special", false)};
}

void add_tokens(const JsonValue& json, Tokenizer::Parts& parts) {
  if (!json.has("added_tokens")) return;
  json.at("added_tokens").for_each_element([&](const JsonValue& element) {
    AddedToken token = read_added(element);
    if (token.content.empty()) return;
    const auto known = parts.model.vocabulary().find(token.content);
    const auto other = parts.model.vocabulary().text_of(token.id);
    if ((known && *known != token.id) || (other && *other != token.content))
      throw element.at("id").refused(known ? fmt::format("{}, as in model.vocab", *known)
                                           : "a number that no token of model.vocab has");
    if (parts.added_by_content.contains(token.content)) return;
    if (parts.added_by_id.contains(token.id)) throw element.at("id").refused("another number for each added token");
    const AddedToken& kept = parts.added.emplace_back(std::move(token));
    parts.added_by_content.emplace(kept.content, &kept);
    parts.added_by_id.emplace(kept.id, &kept);
  });
  PatternMatcher matcher;
  for (AddedToken& token : parts.added)
    token.written = token.normalized ? normalised(parts.normalizer, token.content, matcher) : token.content;
  // Special tokens go first where several are written alike once they are normalised.
  for (const bool special : {true, false}) {
    for (const AddedToken& token : parts.added) {
      if (token.special != special) continue;
      (token.normalized ? parts.in_normalised_text : parts.in_text).add(token, token.written);
    }
  }
}

std::string digest_of(std::string_view text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::optional<TokenId> id_in(const Tokenizer::Parts& parts, std::string_view token) {
  if (const auto added = parts.added_by_content.find(token); added != parts.added_by_content.end())
    return added->second->id;
  return parts.model.vocabulary().find(token);
}

// "eos_token" is a token, or an object with its content.
std::optional<TokenId> end_by_configuration(const fs::path& file, const Tokenizer::Parts& parts) {
  std::error_code unknown;
  if (!fs::is_regular_file(file, unknown)) return std::nullopt;
  const std::string text = read_file(file, longest_configuration);
  const std::string name = shortened(file.string());
  check_json_limits(text, name, {16, 300'000});
  const nlohmann::json configuration = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (configuration.is_discarded())
    throw bad_input(name + " is no JSON", "a tokenizer_config.json", "correct it or take it away");
  const JsonValue json(configuration, name);
  if (!json.has("eos_token")) return std::nullopt;
  const JsonValue token = json.at("eos_token");
  return id_in(parts, token.is_text() ? token.text() : token.at("content").text());
}

void set_end_of_document(const fs::path& folder, Tokenizer::Parts& parts) {
  constexpr std::array<std::string_view, 5> names{"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>",
                                                  "<|end_of_document|>"};
  for (const std::string_view name : names)
    if (!parts.end_of_document) parts.end_of_document = id_in(parts, name);
  if (!parts.end_of_document) parts.end_of_document = end_by_configuration(folder / "tokenizer_config.json", parts);
}

}  // namespace

std::shared_ptr<Tokenizer::Parts> read_parts(std::string_view text, const std::string& source) {
  TokenizerFile file = read_tokenizer_file(text, source);
  const JsonValue json(file.rest, source);
  PreTokenizer pre_tokenizer = read_pre_tokenizer(member_or_null(json, "pre_tokenizer"));
  const bool gives_bytes = pre_tokenizer.gives_bytes;
  Normalizer normalizer = read_normalizer(member_or_null(json, "normalizer"));
  PostProcessor post_processor = read_post_processor(member_or_null(json, "post_processor"));
  Decoder decoder = read_decoder(member_or_null(json, "decoder"));
  const nlohmann::json rest = file.rest;
  auto parts = std::make_shared<Tokenizer::Parts>(Tokenizer::Parts{std::move(normalizer),
                                                                   std::move(pre_tokenizer),
                                                                   Bpe(std::move(file), gives_bytes),
                                                                   std::move(post_processor),
                                                                   std::move(decoder),
                                                                   {}});
  add_tokens(JsonValue(rest, source), *parts);
  for (const auto* ids : {&parts->post_processor.before, &parts->post_processor.behind})
    for (const TokenId id : *ids)
      if (!parts->added_by_id.contains(id) && !parts->model.vocabulary().text_of(id))
        throw bad_input(fmt::format("{}: post_processor adds the token {}, which is beyond the vocabulary", source, id),
                        "a token of model.vocab or added_tokens", "correct the tokenizer");
  parts->digest = digest_of(text);
  return parts;
}

Tokenizer load_tokenizer(const fs::path& path) {
  std::error_code unknown;
  const bool is_folder = fs::is_directory(path, unknown);
  const fs::path file = is_folder ? path / "tokenizer.json" : path;
  if (is_folder && !fs::exists(file, unknown))
    throw bad_input(fmt::format("there is no tokenizer.json in {}", shortened(path.string())),
                    "a folder of a model with its tokenizer.json", "check the path");
  const std::string text = read_file(file, longest_tokenizer);
  const auto parts = read_parts(text, shortened(file.string()));
  set_end_of_document(file.parent_path(), *parts);
  return Tokenizer(parts);
}

}  // namespace penstock
