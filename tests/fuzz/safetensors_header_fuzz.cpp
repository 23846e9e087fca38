// Feeds whole safetensors files to the reader's checks, and headers alone with a length that always fits.
#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "penstock/base/error.h"

#include "checkpoint/safetensors_header.h"

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

template <class Call>
void refuse_with_an_error(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view content(reinterpret_cast<const char*>(data), size);
  refuse_with_an_error([&] {
    std::array<unsigned char, safetensors_length_bytes> first{};
    std::memcpy(first.data(), data, std::min(size, first.size()));
    const std::uint64_t length = safetensors_header_length(first, size, "file");
    const std::uint64_t data_bytes = size - safetensors_length_bytes - length;
    check(parse_safetensors_header(content.substr(safetensors_length_bytes, length), data_bytes, "file"), data_bytes);
  });
  const std::uint64_t data_bytes = size == 0 ? 0 : data[0];
  refuse_with_an_error(
      [&] { check(parse_safetensors_header(content.substr(size == 0 ? 0 : 1), data_bytes, "file"), data_bytes); });
  return 0;
}
