#include "tokenizer/encoding_team.h"

#include <utility>

#include "penstock/base/thread.h"

#include "tokenizer/json_line.h"

namespace penstock {
namespace {

void encode(const DocumentEncoding& encoding, Encoder& encoder, Block& block) {
  for (RawDocument& document : block.documents) {
    if (document.line > 0)
      document.content = text_of_json_line(document.content, encoding.field,
                                           DocumentReader::place_of(encoding.files[document.file], document.line));
    block.text_bytes += static_cast<std::int64_t>(document.content.size());
    const std::vector<TokenId> tokens = encoder.encode(document.content, encoding.options);
    block.tokens.insert(block.tokens.end(), tokens.begin(), tokens.end());
    // A template may have put the same token there.
    if (tokens.empty() || tokens.back() != encoding.end_of_document) block.tokens.push_back(encoding.end_of_document);
    block.ends.push_back(block.tokens.size());
  }
  block.documents.clear();
}

}  // namespace

EncodingTeam::EncodingTeam(const Tokenizer& tokenizer, DocumentEncoding encoding, int threads)
    : tokenizer_(tokenizer), encoding_(std::move(encoding)) {
  try {
    for (int thread = 0; thread < threads; ++thread) threads_.push_back(start_thread([this] { work(); }));
  } catch (...) {
    end();
    throw;
  }
}

EncodingTeam::~EncodingTeam() { end(); }

void EncodingTeam::end() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  given_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void EncodingTeam::submit(Block block) {
  auto work = std::make_shared<Work>(Work{std::move(block)});
  blocks_.push_back(work);
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(work));
  }
  given_.notify_one();
}

Block EncodingTeam::take() {
  const std::shared_ptr<Work> first = std::move(blocks_.front());
  blocks_.pop_front();
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return first->is_done; });
  if (first->block.error) std::rethrow_exception(first->block.error);
  return std::move(first->block);
}

void EncodingTeam::work() {
  Encoder encoder(tokenizer_);
  while (true) {
    std::shared_ptr<Work> next;
    {
      std::unique_lock lock(mutex_);
      given_.wait(lock, [&] { return is_over_ || !waiting_.empty(); });
      if (is_over_) return;
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    try {
      encode(encoding_, encoder, next->block);
    } catch (...) {
      next->block.error = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      next->is_done = true;
    }
    done_.notify_one();
  }
}

}  // namespace penstock
