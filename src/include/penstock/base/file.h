/// \file
/// Files that are whole or not there: what is written goes to a temporary name, is synced to the disk and renamed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace penstock {

/// The longest file that is read into memory if the caller gives no other limit.
inline constexpr std::int64_t longest_file = std::int64_t{256} << 20;

/// Whether something has this name; what cannot be looked at is not there.
[[nodiscard]] bool is_there(const std::filesystem::path& path) noexcept;

/// Reads a whole regular file of at most `most` bytes. Pipes and devices are refused: a pipe may never end, and a
/// device may fill the memory.
/// \throws Error (BadInput) that names the file where it cannot be read, is of another kind or longer.
[[nodiscard]] std::string read_file(const std::filesystem::path& path, std::int64_t most = longest_file);

/// Replaces or creates `path` with `content` so that a crash at any moment leaves the old content or the new, never a
/// part. If `path` is a link, the file that it leads to is replaced; a device or a pipe is written into as it is.
/// \throws Error (RunFailed) that names the file and the reason (a full disk, no permission).
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// An open file that is written front to back and counts what it wrote. Not thread-safe.
class FileWriter {
 public:
  /// Creates `path`, truncating what was there. \throws Error (RunFailed)
  explicit FileWriter(std::filesystem::path path);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  FileWriter(FileWriter&&) = delete;
  FileWriter& operator=(FileWriter&&) = delete;
  ~FileWriter();

  /// Appends `size` bytes from `data`. \throws Error (RunFailed)
  void write(const void* data, std::size_t size);
  /// Waits until the content is on the disk, and closes. \throws Error (RunFailed)
  void sync_and_close();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// Waits until the entries of a folder (creations, renames) are on the disk. \throws Error (RunFailed)
void sync_folder(const std::filesystem::path& folder);

}  // namespace penstock
