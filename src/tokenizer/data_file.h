/// \file
/// A file of data that is read front to back, unpacked on the way where it is packed by gzip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "penstock/base/read_only_file.h"

namespace penstock {

/// Not thread-safe.
class DataFile {
 public:
  /// A name that ends in .gz stands for a packed file. \throws Error (BadInput) where it cannot be read.
  explicit DataFile(const std::filesystem::path& path);
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;
  DataFile(DataFile&&) = delete;
  DataFile& operator=(DataFile&&) = delete;
  ~DataFile();

  /// Fills the beginning of `into`; 0 at the end. \throws Error (BadInput) for gzip that is cut short or damaged.
  [[nodiscard]] std::size_t read(std::span<char> into);
  /// How much of the file itself has been read.
  [[nodiscard]] std::uint64_t bytes_read() const { return offset_; }
  [[nodiscard]] std::string name() const;

 private:
  struct Unpacking;
  std::size_t read_packed(std::span<char> into);
  [[nodiscard]] std::size_t read_plain(std::span<std::byte> into);

  ReadOnlyFile file_;
  std::uint64_t offset_ = 0;
  std::unique_ptr<Unpacking> unpacking_;
};

}  // namespace penstock
