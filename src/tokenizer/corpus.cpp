#include <array>
#include <bit>
#include <fmt/format.h>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/base/list_files.h"
#include "penstock/base/text_limits.h"
#include "penstock/tokenizer/tokenizer.h"

#include "tokenizer/documents.h"
#include "tokenizer/encoding_team.h"
#include "tokenizer/json_value.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little,
              "files of a corpus are little-endian and written as they are");

constexpr std::size_t block_size = std::size_t{1} << 20U;
constexpr int blocks_for_each_thread = 2;
constexpr std::int64_t most_of_two_bytes = 65'536;
constexpr const char* format = "penstock corpus 1";
constexpr std::int64_t longest_index = std::int64_t{1} << 20U;

fs::path with_suffix(const fs::path& name, const char* suffix) {
  fs::path file = name;
  file += suffix;
  return file;
}

// A file that is taken away unless it is kept.
class UnfinishedFile {
 public:
  explicit UnfinishedFile(fs::path target) : target_(std::move(target)), writer_(unfinished()) {}
  UnfinishedFile(const UnfinishedFile&) = delete;
  UnfinishedFile& operator=(const UnfinishedFile&) = delete;
  UnfinishedFile(UnfinishedFile&&) = delete;
  UnfinishedFile& operator=(UnfinishedFile&&) = delete;
  ~UnfinishedFile() {
    std::error_code ignored;
    fs::remove(is_renamed_ ? target_ : unfinished(), ignored);
  }

  void write(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const char*>(data);
    buffer_.insert(buffer_.end(), bytes, bytes + size);
    if (buffer_.size() >= block_size) flush();
  }
  void finish() {
    flush();
    writer_.sync_and_close();
  }
  void rename() {
    std::error_code problem;
    fs::rename(unfinished(), target_, problem);
    if (problem)
      throw run_failed(fmt::format("cannot rename {}: {}", unfinished().string(), problem.message()),
                       "a folder that can be written", "check its permissions");
    is_renamed_ = true;
  }
  // From here on the file stays.
  void keep() { target_.clear(); }

 private:
  [[nodiscard]] fs::path unfinished() const { return with_suffix(target_, ".unfinished"); }
  void flush() {
    writer_.write(buffer_.data(), buffer_.size());
    buffer_.clear();
  }

  fs::path target_;
  FileWriter writer_;
  std::vector<char> buffer_;
  bool is_renamed_ = false;
};

void check_settings(const CorpusSettings& settings) {
  if (settings.data.empty()) throw bad_input("no data", "at least one file or folder", "name it with `data`");
  if (settings.output.empty() || settings.output.filename().empty())
    throw bad_input(fmt::format("the corpus's name is \"{}\"", settings.output.string()), "a name without a suffix",
                    "name it with `output`");
  constexpr int most_threads = 1024;
  if (settings.threads < 1 || settings.threads > most_threads)
    throw bad_input(fmt::format("`threads` is {}", settings.threads), fmt::format("1 to {}", most_threads),
                    "change `threads`");
  const fs::path folder = settings.output.parent_path();
  std::error_code problem;
  if (!folder.empty() && !fs::is_directory(folder, problem))
    throw bad_input(fmt::format("`output` is {}, but there is no folder {}", shortened(settings.output.string()),
                                shortened(folder.string())),
                    "a name in a folder that exists", "make the folder or correct the path");
  for (const char* suffix : {".bin", ".idx", ".json"}) {
    const fs::path file = with_suffix(settings.output, suffix);
    if (fs::exists(fs::symlink_status(file, problem)))
      throw bad_input(fmt::format("{} is there already", shortened(file.string())), "a new name for the corpus",
                      "choose another with `output`, or take the file away");
  }
}

TokenId end_of_document(const Tokenizer& tokenizer, const CorpusSettings& settings) {
  if (settings.end_of_document) {
    const auto id = tokenizer.id_of(*settings.end_of_document);
    if (id) return *id;
    throw bad_input(fmt::format("the end of a document is \"{}\"", shortened(*settings.end_of_document)),
                    "a token of the tokenizer's vocabulary", "correct `end_of_document`");
  }
  if (!tokenizer.end_of_document())
    throw bad_input("the tokenizer has no token that is known to end a document", "such as <|endoftext|>",
                    "name the token with `end_of_document`");
  return *tokenizer.end_of_document();
}

std::int64_t size_of(const std::vector<fs::path>& files) {
  std::int64_t size = 0;
  for (const fs::path& file : files) {
    std::error_code unknown;  // opening the file gives the error
    const std::uintmax_t bytes = fs::file_size(file, unknown);
    if (!unknown) size += static_cast<std::int64_t>(bytes);
  }
  return size;
}

std::string index_of(const Corpus& corpus, const fs::path& output) {
  const nlohmann::ordered_json index = {{"format", format},
                                        {"tokens_file", with_suffix(output.filename(), ".bin").string()},
                                        {"documents_file", with_suffix(output.filename(), ".idx").string()},
                                        {"dtype", corpus.bytes_per_token == 2 ? "uint16" : "uint32"},
                                        {"vocabulary", corpus.vocabulary},
                                        {"tokens", corpus.tokens},
                                        {"documents", corpus.documents},
                                        {"text_bytes", corpus.text_bytes},
                                        {"end_of_document", corpus.end_of_document},
                                        {"tokenizer_xxh3_128", corpus.tokenizer_digest}};
  return index.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// The files of a corpus in the making.
class CorpusFiles {
 public:
  CorpusFiles(const fs::path& output, Corpus corpus)
      : output_(output),
        tokens_(with_suffix(output, ".bin")),
        documents_(with_suffix(output, ".idx")),
        index_(with_suffix(output, ".json")),
        corpus_(std::move(corpus)) {
    write_begin();
  }

  void write(const Block& block) {
    if (corpus_.bytes_per_token == 2) {
      const std::vector<std::uint16_t> narrow(block.tokens.begin(), block.tokens.end());
      tokens_.write(narrow.data(), narrow.size() * sizeof(narrow[0]));
    } else {
      tokens_.write(block.tokens.data(), block.tokens.size() * sizeof(block.tokens[0]));
    }
    corpus_.text_bytes += block.text_bytes;
    const std::int64_t before = corpus_.tokens;
    for (const std::size_t end : block.ends) {
      corpus_.tokens = before + static_cast<std::int64_t>(end);
      ++corpus_.documents;
      write_begin();
    }
  }

  // All files under their names, the index last.
  Corpus finish() {
    const std::string index = index_of(corpus_, output_);
    index_.write(index.data(), index.size());
    for (UnfinishedFile* file : {&tokens_, &documents_, &index_}) file->finish();
    for (UnfinishedFile* file : {&tokens_, &documents_, &index_}) file->rename();
    const fs::path folder = output_.parent_path();
    sync_folder(folder.empty() ? fs::path(".") : folder);
    for (UnfinishedFile* file : {&tokens_, &documents_, &index_}) file->keep();
    return corpus_;
  }

  [[nodiscard]] const Corpus& corpus() const { return corpus_; }

 private:
  void write_begin() {
    const auto begin = static_cast<std::uint64_t>(corpus_.tokens);
    documents_.write(&begin, sizeof(begin));
  }

  fs::path output_;
  UnfinishedFile tokens_;
  UnfinishedFile documents_;
  UnfinishedFile index_;
  Corpus corpus_;
};

void check_size(const fs::path& file, std::int64_t expected, const char* what) {
  std::error_code problem;
  const std::uintmax_t size = fs::file_size(file, problem);
  if (problem)
    throw bad_input(fmt::format("cannot read {}: {}", shortened(file.string()), problem.message()), what,
                    "keep the three files of a corpus together");
  if (size != static_cast<std::uintmax_t>(expected))
    throw bad_input(fmt::format("{} is {}", shortened(file.string()), counted(static_cast<std::int64_t>(size), "byte")),
                    fmt::format("{}, {}", expected, what), "copy the corpus again, or make it anew");
}

}  // namespace

Corpus write_corpus(const Tokenizer& tokenizer, const CorpusSettings& settings,
                    const std::function<void(const CorpusProgress&)>& progress) {
  check_settings(settings);
  Corpus begun;
  begun.vocabulary = static_cast<std::int64_t>(tokenizer.vocabulary());
  begun.bytes_per_token = begun.vocabulary <= most_of_two_bytes ? 2 : 4;
  begun.end_of_document = end_of_document(tokenizer, settings);
  begun.tokenizer_digest = tokenizer.digest();
  const std::vector<fs::path> files = list_files(settings.data);
  const std::int64_t bytes_total = size_of(files);

  DocumentReader reader(files);
  CorpusFiles written(settings.output, begun);
  EncodingTeam team(tokenizer, {files, settings.field, settings.encode, begun.end_of_document}, settings.threads);
  const auto most_outstanding = static_cast<std::size_t>(settings.threads) * blocks_for_each_thread;
  for (bool is_at_end = false; !is_at_end || team.outstanding() > 0;) {
    if (!is_at_end) {
      Block block;
      block.documents = reader.next(block_size);
      block.bytes_read = reader.bytes_read();
      is_at_end = block.documents.empty();
      if (!is_at_end) team.submit(std::move(block));
    }
    if (team.outstanding() == 0 || (!is_at_end && team.outstanding() < most_outstanding)) continue;
    const Block block = team.take();
    written.write(block);
    if (progress) progress({block.bytes_read, bytes_total, written.corpus().documents, written.corpus().tokens});
  }
  return written.finish();
}

Corpus read_corpus_index(const fs::path& file) {
  const std::string text = read_file(file, longest_index);
  const std::string name = shortened(file.string());
  check_json_limits(text, name, {4, 1000});
  const nlohmann::json index = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (index.is_discarded())
    throw bad_input(name + " is no JSON", "the index of a corpus, as penstock tokenize writes it", "check the path");
  const JsonValue json(index, name);
  if (json.text_or("format", "") != format) throw json.at("format").refused(fmt::format("\"{}\"", format));
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max() / 8 - 1);
  const auto number = [&](const char* key) { return static_cast<std::int64_t>(json.at(key).whole_number(most)); };
  Corpus corpus;
  const std::string& dtype = json.at("dtype").text();
  if (dtype != "uint16" && dtype != "uint32") throw json.at("dtype").refused("uint16 or uint32");
  corpus.bytes_per_token = dtype == "uint16" ? 2 : 4;
  corpus.vocabulary = number("vocabulary");
  corpus.tokens = number("tokens");
  corpus.documents = number("documents");
  if (index.contains("text_bytes")) corpus.text_bytes = number("text_bytes");
  corpus.end_of_document =
      static_cast<TokenId>(json.at("end_of_document").whole_number(std::numeric_limits<std::int32_t>::max()));
  corpus.tokenizer_digest = json.at("tokenizer_xxh3_128").text();
  fs::path tokens = file;
  check_size(tokens.replace_extension(".bin"), corpus.tokens * corpus.bytes_per_token, "the bytes of its tokens");
  fs::path documents = file;
  check_size(documents.replace_extension(".idx"), (corpus.documents + 1) * 8, "the bytes of its documents' places");
  return corpus;
}

}  // namespace penstock
