/// \file
/// The header of a safetensors file, without the tensors and without libtorch: what the fuzzer feeds.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

/// The element types that penstock reads and writes, in the order of the table in safetensors_header.cpp.
enum class SafetensorsDtype : std::uint8_t {
  Bool,
  U8,
  I8,
  F8E4M3,
  F8E5M2,
  U16,
  I16,
  F16,
  BF16,
  U32,
  I32,
  F32,
  U64,
  I64,
  F64,
  C64
};

/// "F32" and its like, as the header spells them.
[[nodiscard]] std::string_view to_string(SafetensorsDtype dtype);
/// Bytes of one element.
[[nodiscard]] std::uint64_t size_of(SafetensorsDtype dtype);

/// What the header says of one tensor. `begin` and `end` count bytes from the end of the header.
struct SafetensorsEntry {
  SafetensorsDtype dtype = SafetensorsDtype::U8;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  friend bool operator==(const SafetensorsEntry&, const SafetensorsEntry&) = default;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry, std::less<>> tensors;
  std::map<std::string, std::string> metadata;

  friend bool operator==(const SafetensorsHeader&, const SafetensorsHeader&) = default;
};

/// The first bytes of the file: the header's length as a little-endian uint64.
inline constexpr std::uint64_t safetensors_length_bytes = 8;

/// The largest number of dimensions that a tensor may have: libtorch's own kernels stop there too.
inline constexpr std::size_t safetensors_most_dimensions = 64;

/// Bytes of a dense tensor, or nothing where they, or the strides, do not fit into int64.
[[nodiscard]] std::optional<std::uint64_t> dense_bytes(SafetensorsDtype dtype, const std::vector<std::int64_t>& shape);

/// The header's length from the file's first bytes.
/// \param file the file's name for messages. \param file_bytes how long the whole file is.
/// \throws Error (BadInput) where the header could not fit into the file.
[[nodiscard]] std::uint64_t safetensors_header_length(const std::array<unsigned char, safetensors_length_bytes>& first,
                                                      std::uint64_t file_bytes, const std::string& file);

/// Checks all of a header: the JSON, its keys, dtypes, shapes, that bytes and shapes agree and that the tensors lie one
/// behind the other, without gap or overlap, to the file's end.
/// \param data_bytes how many bytes follow the header in the file. \throws Error (BadInput)
[[nodiscard]] SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                                         const std::string& file);

/// The file's beginning up to the first tensor's data: the length and the header, padded with spaces to a multiple
/// of 8.
/// \param order the names of `header.tensors` by their place in the file. \throws Error (BadInput) for a name that is
///   not UTF-8.
[[nodiscard]] std::string format_safetensors_header(const SafetensorsHeader& header,
                                                    const std::vector<std::string>& order);

}  // namespace penstock
