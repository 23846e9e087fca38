// Feeds the checks of a checkpoint's reader with a whole checkpoint: the index, and behind it the file that it may
// name, each as text_of_input makes it. The first two bytes are the length of the index's input; the highest bit says
// that its last line is made to fit, so that what stands behind the checksum is reached.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <string_view>

#include "penstock/base/error.h"

#include "checkpoint/checkpoint_index.h"
#include "checkpoint/checksum.h"
#include "checkpoint/safetensors_header.h"
#include "memory_bound.h"
#include "read_input.h"

namespace {

using namespace penstock;

// A reader makes room for nothing that is not in the file.
constexpr std::size_t beside_bytes = 1'000'000;

std::string with_its_last_line(std::string_view body) {
  Checksum checksum;
  checksum.add(body.data(), body.size());
  return fmt::format("{}\"xxh64\": \"{}\"}}\n", body, checksum.text());
}

// What a reader may rely on: no file outside the folder, every tensor in a file that is there.
void check(const CheckpointIndex& index) {
  if (index.step < 0) std::abort();
  for (const auto& [name, sum] : index.files)
    if (name.empty() || name == ".." || name.find('/') != std::string::npos) std::abort();
  for (const auto& [name, file] : index.tensors)
    if (!index.files.contains(file)) std::abort();
  if (parse_index(format_index(index), "file") != index) std::abort();
}

// As the reader of one file of the checkpoint: every tensor within the data, of the size of its shape.
void check_file(std::string_view content) {
  std::array<unsigned char, safetensors_length_bytes> first{};
  std::memcpy(first.data(), content.data(), std::min(content.size(), first.size()));
  const std::uint64_t length = safetensors_header_length(first, content.size(), "file");
  const std::uint64_t data_bytes = content.size() - safetensors_length_bytes - length;
  const SafetensorsHeader header =
      parse_safetensors_header(content.substr(safetensors_length_bytes, length), data_bytes, "file");
  std::uint64_t covered = 0;
  for (const auto& [name, entry] : header.tensors) {
    if (entry.begin > entry.end || entry.end > data_bytes) std::abort();
    if (dense_bytes(entry.dtype, entry.shape) != entry.end - entry.begin) std::abort();
    covered += entry.end - entry.begin;
  }
  if (covered != data_bytes) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size < 2) return 0;
  const unsigned head = data[0] | (static_cast<unsigned>(data[1]) << 8U);
  const std::size_t index_size = std::min<std::size_t>(head & 0x7fffU, size - 2);
  const std::string text = text_of_input(data + 2, index_size);
  const std::string index = (head & 0x8000U) != 0 ? with_its_last_line(text) : text;
  const std::string content = text_of_input(data + 2 + index_size, size - 2 - index_size);
  refuse_in_one_line([&] {
    std::optional<CheckpointIndex> read;
    {
      const MemoryBound bound(index.size(), beside_bytes);
      read = parse_index(index, "file");
    }
    check(*read);
  });
  refuse_in_one_line([&] {
    const MemoryBound bound(content.size(), beside_bytes);
    check_file(content);
  });
  return 0;
}
