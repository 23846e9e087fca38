/// \file
/// Documents, one after the other, out of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tokenizer/data_file.h"

namespace penstock {

/// A document as it stands in its file.
struct RawDocument {
  std::string content;    ///< text, or a line of JSON
  std::size_t file = 0;   ///< its place among the files
  std::int64_t line = 0;  ///< of JSON, from 1 on; 0: the content is text
};

/// Reads files in their order. Not thread-safe.
class DocumentReader {
 public:
  explicit DocumentReader(std::vector<std::filesystem::path> files);

  /// Documents of together `enough` bytes or a little more; none at the end.
  /// \throws Error (BadInput) for a file that cannot be read, and a document of more than 256 MiB.
  [[nodiscard]] std::vector<RawDocument> next(std::size_t enough);
  /// How much of the files was read, packed as they are.
  [[nodiscard]] std::int64_t bytes_read() const;
  /// Names a document in messages: "code.jsonl line 3".
  [[nodiscard]] static std::string place_of(const std::filesystem::path& file, std::int64_t line);

  /// Whether each line of the file is a document, by the file's name.
  [[nodiscard]] static bool has_lines(const std::filesystem::path& file);

 private:
  // Reads on; whether there is more.
  bool fill();
  // The next line without its end, or nothing at the end of the file.
  bool next_line(std::string& line);
  void read_whole(std::string& content);
  [[nodiscard]] std::string place() const;

  std::vector<std::filesystem::path> files_;
  std::size_t next_file_ = 0;
  std::unique_ptr<DataFile> open_;
  std::int64_t line_ = 0;
  std::int64_t bytes_of_closed_ = 0;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace penstock
