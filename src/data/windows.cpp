#include "data/windows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include <ATen/ops/empty.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian and read as they are");

template <class Token>
void widen(std::span<const std::byte> bytes, std::int64_t* tokens) {
  for (std::size_t place = 0; place < bytes.size(); place += sizeof(Token)) {
    Token token = 0;
    std::memcpy(&token, bytes.data() + place, sizeof(Token));
    *tokens++ = static_cast<std::int64_t>(token);
  }
}

template <class Token>
Token largest(std::span<const std::byte> bytes) {
  Token found = 0;
  for (std::size_t place = 0; place < bytes.size(); place += sizeof(Token)) {
    Token token = 0;
    std::memcpy(&token, bytes.data() + place, sizeof(Token));
    found = std::max(found, token);
  }
  return found;
}

}  // namespace

WindowDataset::WindowDataset(std::shared_ptr<const ByteSequence> tokens, std::int64_t token_bytes,
                             std::vector<Range> ranges, std::int64_t context)
    : tokens_(std::move(tokens)), token_bytes_(token_bytes), ranges_(std::move(ranges)), context_(context) {
  std::int64_t samples = 0;
  for (const Range& range : ranges_) {
    check_invariant(range.end - range.begin > context_, "each range has room for a window");
    samples += range.end - range.begin - context_;
    ends_.push_back(samples);
  }
  check_invariant(samples > 0, "a dataset has at least one sample");
}

std::int64_t WindowDataset::first_token(std::int64_t sample) const {
  check_invariant(sample >= 0 && sample < size(), "a sample's number is below the size of its dataset");
  const auto range = static_cast<std::size_t>(std::ranges::upper_bound(ends_, sample) - ends_.begin());
  return ranges_[range].begin + sample - (range == 0 ? 0 : ends_[range - 1]);
}

Batch WindowDataset::batch(std::span<const std::int64_t> samples) const {
  const auto rows = static_cast<std::int64_t>(samples.size());
  const auto options = at::TensorOptions().dtype(at::kLong);
  Batch batch{at::empty({rows, context_}, options), at::empty({rows, context_}, options)};
  auto* input = batch.input.mutable_data_ptr<std::int64_t>();
  auto* target = batch.target.mutable_data_ptr<std::int64_t>();

  const auto context = static_cast<std::size_t>(context_);
  std::vector<std::byte> bytes((context + 1) * static_cast<std::size_t>(token_bytes_));
  std::vector<std::int64_t> window(context + 1);
  for (const std::int64_t sample : samples) {
    tokens_->copy(static_cast<std::uint64_t>(first_token(sample) * token_bytes_), bytes);
    if (token_bytes_ == 1)
      widen<std::uint8_t>(bytes, window.data());
    else if (token_bytes_ == 2)
      widen<std::uint16_t>(bytes, window.data());
    else
      widen<std::uint32_t>(bytes, window.data());
    input = std::copy_n(window.data(), context, input);
    target = std::copy_n(window.data() + 1, context, target);
  }
  return batch;
}

std::uint32_t largest_token(const ByteSequence& tokens, std::int64_t token_bytes) {
  std::uint32_t found = 0;
  tokens.visit(0, tokens.size(), [&](std::span<const std::byte> bytes) {
    found = std::max<std::uint32_t>(found,
                                    token_bytes == 2 ? largest<std::uint16_t>(bytes) : largest<std::uint32_t>(bytes));
  });
  return found;
}

}  // namespace penstock
