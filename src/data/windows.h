/// \file
/// Text and tokens: every place where a window of context + 1 tokens fits into one range of the split is a sample.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "penstock/data/dataset.h"

#include "data/byte_sequence.h"
#include "data/split.h"

namespace penstock {

class WindowDataset final : public Dataset {
 public:
  /// \param tokens the bytes of all tokens, little-endian, `token_bytes` (1, 2 or 4) each.
  /// \param ranges in tokens; each has room for a window.
  WindowDataset(std::shared_ptr<const ByteSequence> tokens, std::int64_t token_bytes, std::vector<Range> ranges,
                std::int64_t context);

  [[nodiscard]] std::int64_t size() const override { return ends_.back(); }
  [[nodiscard]] Batch batch(std::span<const std::int64_t> samples) const override;

  /// For bigram_loss, which counts the text itself.
  [[nodiscard]] const ByteSequence& tokens() const { return *tokens_; }
  [[nodiscard]] const std::vector<Range>& ranges() const { return ranges_; }

 private:
  [[nodiscard]] std::int64_t first_token(std::int64_t sample) const;

  std::shared_ptr<const ByteSequence> tokens_;
  std::int64_t token_bytes_;
  std::vector<Range> ranges_;
  std::vector<std::int64_t> ends_;  // for each range, the number of samples up to and with it
  std::int64_t context_;
};

/// The largest token in all of `tokens`. \throws InvariantViolation where there is none.
[[nodiscard]] std::uint32_t largest_token(const ByteSequence& tokens, std::int64_t token_bytes);

}  // namespace penstock
