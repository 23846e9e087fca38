/// \file
/// A file that is read at positions, from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace penstock {

/// An open regular file. Its size is that of the moment of opening. `read` may be called from any thread; the file
/// stays readable after its name is gone.
class ReadOnlyFile {
 public:
  /// \throws Error (BadInput) if it is missing, unreadable or no regular file.
  explicit ReadOnlyFile(std::filesystem::path path);
  ReadOnlyFile(const ReadOnlyFile&) = delete;
  ReadOnlyFile& operator=(const ReadOnlyFile&) = delete;
  ReadOnlyFile(ReadOnlyFile&& other) noexcept;
  ReadOnlyFile& operator=(ReadOnlyFile&& other) noexcept;
  ~ReadOnlyFile();

  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] std::string name() const { return path_.string(); }

  /// The descriptor, for mmap and the like. It stays this object's.
  [[nodiscard]] int descriptor() const { return descriptor_; }

  /// Fills `into` from `offset` on. \throws Error (BadInput) if the file ends earlier or cannot be read.
  void read(std::uint64_t offset, std::span<std::byte> into) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace penstock
