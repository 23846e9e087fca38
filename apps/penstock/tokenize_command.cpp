#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/types.h"
#include "penstock/tokenizer/tokenizer.h"

#include "schedule_commands.h"

namespace penstock::app {
namespace {

struct TokenizeOptions {
  std::string tokenizer;
  CorpusSettings corpus;
  std::string output;
  std::string end_of_document;
  bool without_template = false;
  bool special_as_text = false;
  bool quiet = false;
  bool json = false;
};

double megabytes(std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; }

// One line of the terminal, written anew at most ten times a second.
class ProgressLine {
 public:
  explicit ProgressLine(bool is_shown) : is_shown_(is_shown) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ProgressLine(ProgressLine&&) = delete;
  ProgressLine& operator=(ProgressLine&&) = delete;
  ~ProgressLine() {
    if (is_written_) std::fputs("\r\x1b[K", stderr);
  }

  void show(const CorpusProgress& progress) {
    constexpr double pause_ms = 100;
    const Milliseconds now = clock_.now();
    if (!is_shown_ || (is_written_ && (now - written_).count < pause_ms)) return;
    const double share = progress.bytes_total > 0 ? 100.0 * static_cast<double>(progress.bytes_read) /
                                                        static_cast<double>(progress.bytes_total)
                                                  : 100.0;
    fmt::print(stderr, "\r\x1b[K{:3.0f} % of {:.1f} MB, {}, {}", share, megabytes(progress.bytes_total),
               counted(progress.documents, "document"), counted(progress.tokens, "token"));
    std::fflush(stderr);
    written_ = now;
    is_written_ = true;
  }

 private:
  SteadyClock clock_;
  Milliseconds written_;
  bool is_shown_;
  bool is_written_ = false;
};

std::string to_json(const Corpus& corpus, const std::string& output) {
  const nlohmann::ordered_json answer = {{"corpus", output},
                                         {"documents", corpus.documents},
                                         {"tokens", corpus.tokens},
                                         {"vocabulary", corpus.vocabulary},
                                         {"dtype", corpus.bytes_per_token == 2 ? "uint16" : "uint32"},
                                         {"end_of_document", corpus.end_of_document}};
  return answer.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string to_text(const Corpus& corpus, const std::string& output, const std::string& end_of_document,
                    Milliseconds time) {
  const bool is_narrow = corpus.bytes_per_token == 2;
  return fmt::format(
      "{} in {}, vocabulary {}, each document ends with {} ({}), {:.1f} s\n"
      "{}.bin  little-endian {}; train on it with --data {}.bin\n",
      counted(corpus.tokens, "token"), counted(corpus.documents, "document"), corpus.vocabulary, end_of_document,
      corpus.end_of_document, time.count / 1000, output, is_narrow ? "uint16" : "uint32", output);
}

int run(TokenizeOptions options) {
  const SteadyClock clock;
  const Milliseconds begun = clock.now();
  const Tokenizer tokenizer = load_tokenizer(options.tokenizer);
  options.corpus.output = options.output;
  options.corpus.encode = {!options.without_template, !options.special_as_text};
  if (!options.end_of_document.empty()) options.corpus.end_of_document = options.end_of_document;
  Corpus corpus;
  {
    ProgressLine line(!options.quiet && ::isatty(STDERR_FILENO) == 1);
    corpus = write_corpus(tokenizer, options.corpus, [&](const CorpusProgress& progress) { line.show(progress); });
  }
  if (options.json)
    fmt::print("{}", to_json(corpus, options.output));
  else if (!options.quiet)
    fmt::print("{}", to_text(corpus, options.output, tokenizer.token(corpus.end_of_document).value_or(""),
                             clock.now() - begun));
  return 0;
}

}  // namespace

Command add_tokenize_command(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  options->corpus.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  CLI::App* command =
      app.add_subcommand("tokenize", "Turns documents into a corpus of tokens, by a tokenizer.json, for train --data");
  command->add_option("--tokenizer", options->tokenizer, "A tokenizer.json, or the folder of a model that holds one")
      ->required();
  command
      ->add_option(
          "--data", options->corpus.data,
          "Files and folders: .jsonl and .ndjson have a document on each line, other files are one each; .gz is "
          "unpacked")
      ->required();
  command->add_option("-o,--output", options->output, "The corpus's name: NAME.bin, NAME.idx and NAME.json are written")
      ->required();
  command->add_option("--field", options->corpus.field, "In JSON lines: the member that holds the document")
      ->capture_default_str();
  command
      ->add_option("--threads", options->corpus.threads, "Threads that look for tokens; by default one for each core")
      ->check(whole_number<int>, "");
  command->add_option("--end-of-document", options->end_of_document,
                      "The token behind each document; by default <|endoftext|> or its like, as the tokenizer has it");
  command->add_flag("--without-template", options->without_template,
                    "Leave out what the tokenizer puts around a text, such as a token that begins it");
  command->add_flag("--special-as-text", options->special_as_text,
                    "Read special tokens that are written in a document as the text that they are");
  command->add_flag("-q,--quiet", options->quiet, "Print nothing but errors");
  command->add_flag("--json", options->json, "Answer as JSON");
  return [options] { return run(*options); };
}

}  // namespace penstock::app
