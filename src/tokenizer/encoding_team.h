/// \file
/// Threads that encode blocks of documents; the blocks come back in the order in which they were given.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "penstock/tokenizer/tokenizer.h"

#include "tokenizer/documents.h"

namespace penstock {

/// Documents and, once they are encoded, their tokens.
struct Block {
  std::vector<RawDocument> documents;
  std::int64_t bytes_read = 0;    ///< of the files, when this block had been read
  std::vector<TokenId> tokens;    ///< of all documents, each with its end
  std::vector<std::size_t> ends;  ///< of the documents, in `tokens`
  std::int64_t text_bytes = 0;    ///< of the documents' texts
  std::exception_ptr error;
};

/// How each document is encoded.
struct DocumentEncoding {
  std::vector<std::filesystem::path> files;
  std::string field;
  EncodeOptions options;
  TokenId end_of_document = 0;
};

/// `give` and `take` are called by one thread.
class EncodingTeam {
 public:
  /// \throws Error (RunFailed) where the system has no room for so many threads.
  EncodingTeam(const Tokenizer& tokenizer, DocumentEncoding encoding, int threads);
  EncodingTeam(const EncodingTeam&) = delete;
  EncodingTeam& operator=(const EncodingTeam&) = delete;
  EncodingTeam(EncodingTeam&&) = delete;
  EncodingTeam& operator=(EncodingTeam&&) = delete;
  /// Waits for the blocks in work, and lets the others be.
  ~EncodingTeam();

  void submit(Block block);
  /// The block that was given first of those that were not taken; waits for it. \throws what encoding it has thrown.
  [[nodiscard]] Block take();
  /// How many blocks were given and not taken.
  [[nodiscard]] std::size_t outstanding() const { return blocks_.size(); }

 private:
  struct Work {
    Block block;
    bool is_done = false;
  };
  void work();
  void end();

  const Tokenizer& tokenizer_;
  DocumentEncoding encoding_;
  std::mutex mutex_;
  std::condition_variable given_;
  std::condition_variable done_;
  std::deque<std::shared_ptr<Work>> waiting_;
  bool is_over_ = false;
  std::deque<std::shared_ptr<Work>> blocks_;  // of the thread that gives and takes
  std::vector<std::thread> threads_;
};

}  // namespace penstock
