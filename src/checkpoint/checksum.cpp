#include "checkpoint/checksum.h"

// The functions come with the header, so that neither penstock nor a program that uses it links another library.
#define XXH_INLINE_ALL
#include <algorithm>
#include <fmt/format.h>
#include <span>
#include <vector>
#include <xxhash.h>

namespace penstock {

struct Checksum::State {
  XXH64_state_t hash;
};

Checksum::Checksum() : state_(std::make_unique<State>()) { XXH64_reset(&state_->hash, 0); }

Checksum::~Checksum() = default;

void Checksum::add(const void* data, std::size_t size) {
  if (size > 0) XXH64_update(&state_->hash, data, size);
}

std::string Checksum::text() const { return fmt::format("{:016x}", XXH64_digest(&state_->hash)); }

std::string checksum_of(const ReadOnlyFile& file) {
  constexpr std::uint64_t piece = std::uint64_t{1} << 20U;
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min(piece, file.size())));
  Checksum checksum;
  for (std::uint64_t offset = 0; offset < file.size(); offset += buffer.size()) {
    const std::span<std::byte> next(
        buffer.data(), static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), file.size() - offset)));
    file.read(offset, next);
    checksum.add(next.data(), next.size());
  }
  return checksum.text();
}

}  // namespace penstock
