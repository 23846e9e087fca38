#include <memory>

#include <ATen/ATen.h>

#include "penstock/base/random.h"
#include "penstock/data/dataset.h"

namespace penstock {
namespace {

class DrawnTokens final : public Dataset {
 public:
  DrawnTokens(std::int64_t vocabulary, std::int64_t context)
      : vocabulary_(static_cast<std::uint64_t>(vocabulary)), window_(context + 1) {}

  [[nodiscard]] std::int64_t size() const override { return std::int64_t{1} << 20; }

  [[nodiscard]] Batch batch(std::span<const std::int64_t> samples) const override {
    const at::Tensor tokens = at::empty({std::ssize(samples), window_}, at::kLong);
    auto* next = tokens.mutable_data_ptr<std::int64_t>();
    for (const std::int64_t sample : samples)
      for (std::int64_t place = 0; place < window_; ++place)
        *next++ = static_cast<std::int64_t>(
            mix_key({static_cast<std::uint64_t>(sample), static_cast<std::uint64_t>(place)}) % vocabulary_);
    return {tokens.narrow(1, 0, window_ - 1).contiguous(), tokens.narrow(1, 1, window_ - 1).contiguous()};
  }

 private:
  std::uint64_t vocabulary_;
  std::int64_t window_;
};

}  // namespace

std::shared_ptr<const Dataset> drawn_tokens(std::int64_t vocabulary, std::int64_t context) {
  return std::make_shared<const DrawnTokens>(vocabulary, context);
}

}  // namespace penstock
