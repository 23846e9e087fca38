// Feeds whole safetensors files to the reader's checks, and headers alone with a length that always fits.
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "penstock/base/error.h"

#include "checkpoint/safetensors_header.h"
#include "memory_bound.h"
#include "read_input.h"

namespace {

using namespace penstock;

/// What was accepted must be what a reader may rely on: every tensor within the data, of the size of its shape.
void check(const SafetensorsHeader& header, std::uint64_t data_bytes) {
  std::uint64_t covered = 0;
  for (const auto& [name, entry] : header.tensors) {
    if (entry.begin > entry.end || entry.end > data_bytes) std::abort();
    if (dense_bytes(entry.dtype, entry.shape) != entry.end - entry.begin) std::abort();
    covered += entry.end - entry.begin;
  }
  if (covered != data_bytes) std::abort();
}

// A header's reader makes room for nothing that is not in it.
constexpr std::size_t beside_bytes = 1'000'000;

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string text = text_of_input(data, size);
  const std::string_view content = text;
  refuse_in_one_line([&] {
    const MemoryBound bound(content.size(), beside_bytes);
    std::array<unsigned char, safetensors_length_bytes> first{};
    std::memcpy(first.data(), content.data(), std::min(content.size(), first.size()));
    const std::uint64_t length = safetensors_header_length(first, content.size(), "file");
    const std::uint64_t data_bytes = content.size() - safetensors_length_bytes - length;
    check(parse_safetensors_header(content.substr(safetensors_length_bytes, length), data_bytes, "file"), data_bytes);
  });
  const std::uint64_t data_bytes = content.empty() ? 0 : static_cast<unsigned char>(content.front());
  refuse_in_one_line([&] {
    const MemoryBound bound(content.size(), beside_bytes);
    check(parse_safetensors_header(content.substr(content.empty() ? 0 : 1), data_bytes, "file"), data_bytes);
  });
  return 0;
}
