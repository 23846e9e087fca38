#include "penstock/data/tokenized.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/list_files.h"
#include "penstock/base/scratch_folder.h"
#include "penstock/base/text_limits.h"
#include "penstock/tokenizer/tokenizer.h"

#include "data/token_index.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

DataKind kind_of(const Corpus& corpus) { return corpus.bytes_per_token == 2 ? DataKind::Tokens16 : DataKind::Tokens32; }

// The tokens of another tokenizer would train on nonsense.
void check_tokenizer(const std::vector<fs::path>& files, const fs::path& folder) {
  std::optional<std::string> digest;
  for (const fs::path& file : files) {
    const auto index = index_of_tokens(file);
    if (!index) continue;
    if (!digest && is_there(folder / "tokenizer.json")) digest = load_tokenizer(folder).digest();
    if (digest && index->tokenizer_digest != *digest)
      throw bad_input(fmt::format("{} was made with another tokenizer than that of {}", file.string(), folder.string()),
                      "tokens of the model's own tokenizer", "make it with penstock tokenize and that folder");
  }
}

// Narrow tokens are what files without an index are taken for, which wide ones would be read as without an error.
void check_width_is_known(const std::vector<fs::path>& files, std::optional<DataKind> given, std::int64_t vocabulary) {
  constexpr std::int64_t most_of_16_bits = 65'536;
  if (given || vocabulary <= most_of_16_bits) return;
  for (const fs::path& file : files)
    if (!index_of_tokens(file))
      throw bad_input(fmt::format("{} has no index that says how wide its tokens are, of a vocabulary of {}",
                                  file.string(), vocabulary),
                      "tokens that penstock tokenize has made, or `data_kind`",
                      "set `data_kind` to tokens16 or tokens32");
}

bool is_token_file(const fs::path& file) { return file.extension() == ".bin"; }

// 0 where one of them does not say it.
std::int64_t indexed_text_bytes(const std::vector<fs::path>& files) {
  std::int64_t bytes = 0;
  for (const fs::path& file : files) {
    const auto index = index_of_tokens(file);
    if (!index || index->text_bytes == 0) return 0;
    bytes += index->text_bytes;
  }
  return bytes;
}

// The index beside the tokens is no data.
std::vector<fs::path> without_indices(std::vector<fs::path> files) {
  if (std::none_of(files.begin(), files.end(), is_token_file)) return files;
  std::erase_if(files, [&](const fs::path& file) {
    return (file.extension() == ".json" || file.extension() == ".idx") &&
           is_there(fs::path(file).replace_extension(".bin"));
  });
  return files;
}

// Those of the file's `eos_token_id`, a number or a list, that the tokenizer has; none where there is no such file.
std::vector<TokenId> ends_in(const fs::path& file, const Tokenizer& tokenizer) {
  if (!is_there(file)) return {};
  const std::string text = read_file(file);
  check_json_limits(text, file.string(), {});
  const nlohmann::json config = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object() || !config.contains("eos_token_id")) return {};
  const nlohmann::json& given = config.at("eos_token_id");
  std::vector<TokenId> ends;
  for (const nlohmann::json& end : given.is_array() ? given : nlohmann::json::array({given})) {
    if (!end.is_number_unsigned() || end.get<std::uint64_t>() >= tokenizer.vocabulary()) continue;
    const auto id = static_cast<TokenId>(end.get<std::uint64_t>());
    const auto token = tokenizer.token(id);
    if (token && tokenizer.id_of(*token) == id) ends.push_back(id);
  }
  return ends;
}

std::optional<TokenId> end_by_config(const Tokenizer& tokenizer, const fs::path& folder) {
  const std::vector<TokenId> ends = ends_in(folder / "config.json", tokenizer);
  return ends.empty() ? std::nullopt : std::optional(ends.front());
}

// What the tokenizer names itself goes before what the model was configured with.
std::optional<TokenId> end_of_document_of(const Tokenizer& tokenizer, const fs::path& folder) {
  const auto end = tokenizer.end_of_document();
  return end ? end : end_by_config(tokenizer, folder);
}

Data open_texts(DataSettings settings, const std::vector<fs::path>& files, const fs::path& folder) {
  const Tokenizer tokenizer = load_tokenizer(folder);
  const ScratchFolder temporary("penstock-corpus");
  CorpusSettings corpus;
  corpus.data = files;
  corpus.field = settings.field;
  corpus.output = temporary.path() / "corpus";
  corpus.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const auto end = end_of_document_of(tokenizer, folder);
  if (!end)
    throw bad_input(fmt::format("the tokenizer in {} has no token that is known to end a document, and config.json no "
                                "eos_token_id that it has",
                                folder.string()),
                    "such a token, or tokens in place of texts",
                    "make the tokens with penstock tokenize and name it there with `end_of_document`");
  corpus.end_of_document = tokenizer.token(*end);
  const Corpus written = write_corpus(tokenizer, corpus);
  settings.kind = kind_of(written);
  settings.paths = {temporary.path() / "corpus.bin"};
  // What is mapped stays when its name goes.
  Data data = open_data(settings);
  data.description.text_bytes = written.text_bytes;
  return data;
}

}  // namespace

Data open_tokenized(const DataSettings& settings, const fs::path& folder, std::int64_t vocabulary) {
  if (settings.kind == DataKind::Images)
    throw bad_input("`data_kind` = images for a published model", "text, or token files", "change `data_kind`");
  const std::vector<fs::path> files = without_indices(list_files(settings.paths));
  const auto binaries = static_cast<std::int64_t>(std::count_if(files.begin(), files.end(), is_token_file));
  if (!settings.kind && binaries > 0 && binaries < std::ssize(files))
    throw bad_input(
        fmt::format("{} of tokens (.bin) among {}", counted(binaries, "file"), counted(std::ssize(files), "file")),
        "texts, or files of tokens", "name them apart, each with a weight");
  const bool tokens = settings.kind ? settings.kind != DataKind::Text : binaries > 0;
  DataSettings own = settings;
  own.paths = files;
  if (tokens) {
    check_tokenizer(files, folder);
    check_width_is_known(files, settings.kind, vocabulary);
  }
  Data data = tokens ? open_data(own) : open_texts(own, files, folder);
  if (tokens) data.description.text_bytes = indexed_text_bytes(files);
  if (data.description.vocabulary > vocabulary)
    throw bad_input(fmt::format("the token {} in {}", data.description.vocabulary - 1, settings.paths.front().string()),
                    fmt::format("tokens below {}, the vocabulary of the model", vocabulary),
                    "make the tokens with the model's own tokenizer (penstock tokenize)");
  data.description.vocabulary = vocabulary;
  return data;
}

std::set<TokenId> stop_tokens(const Tokenizer& tokenizer, const fs::path& folder) {
  std::set<TokenId> stops;
  if (const auto end = tokenizer.end_of_document()) stops.insert(*end);
  for (const char* file : {"generation_config.json", "config.json"})
    for (const TokenId end : ends_in(folder / file, tokenizer)) stops.insert(end);
  return stops;
}

std::optional<std::int64_t> end_of_documents(const std::vector<fs::path>& paths, const fs::path& folder) {
  if (is_there(folder / "tokenizer.json"))
    if (const auto end = end_of_document_of(load_tokenizer(folder), folder)) return *end;
  if (paths.empty() || !is_token_file(paths.front())) return std::nullopt;
  const auto index = index_of_tokens(paths.front());
  return index ? std::optional<std::int64_t>(index->end_of_document) : std::nullopt;
}

}  // namespace penstock
