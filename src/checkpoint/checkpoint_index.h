/// \file
/// The index of a checkpoint, `index.json`: the file whose presence and content make a folder a checkpoint. Without
/// libtorch: what the fuzzer feeds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "checkpoint/checksum.h"

namespace penstock {

inline constexpr const char* checkpoint_index_name = "index.json";

struct CheckpointIndex {
  std::int64_t step = 0;
  std::string metadata;                                     ///< The caller's text.
  std::map<std::string, FileSum> files;                     ///< By file name within the checkpoint's folder.
  std::map<std::string, std::string, std::less<>> tensors;  ///< The file that holds each tensor, by the tensor's name.

  friend bool operator==(const CheckpointIndex&, const CheckpointIndex&) = default;
};

/// The text of the index: JSON whose last line holds the checksum of all bytes before that line.
/// \throws Error (BadInput) where the metadata is not UTF-8.
[[nodiscard]] std::string format_index(const CheckpointIndex& index);

/// \param file its name for messages. \throws Error (BadInput) where the text is damaged, foreign or of another
/// version.
[[nodiscard]] CheckpointIndex parse_index(std::string_view text, const std::string& file);

/// Reads the index of the checkpoint in `folder` and holds the sizes of its files against it; their content is not
/// read. \throws Error (BadInput) that names the file that is missing or wrong.
[[nodiscard]] CheckpointIndex read_index(const std::filesystem::path& folder);

}  // namespace penstock
