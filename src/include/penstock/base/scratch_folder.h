/// \file
/// Folders that are there for as long as something is made in them.
#pragma once

#include <filesystem>
#include <string>

namespace penstock {

/// A new folder that only its owner knows. It is deleted with this object, with all that is in it, unless it was
/// published. A process that is killed leaves it behind. Not thread-safe.
class ScratchFolder {
 public:
  /// In the system's folder for temporary files, which TMPDIR names. \param prefix what its name begins with.
  /// \throws Error (RunFailed) if it cannot be made.
  explicit ScratchFolder(const std::string& prefix);

  /// Beside `target`, under another name, so that `publish_as` need only rename it; folders above it are made.
  /// \throws Error (RunFailed) if it cannot be made.
  [[nodiscard]] static ScratchFolder beside(const std::filesystem::path& target);

  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ScratchFolder(ScratchFolder&&) = delete;
  ScratchFolder& operator=(ScratchFolder&&) = delete;
  ~ScratchFolder();

  /// Where to write.
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

  /// Gives the folder the name `target`, under which it stays, and waits until the name is on the disk. Whoever finds
  /// `target` finds all that was written and synced before. An empty folder there is replaced. Call at most once.
  /// \throws Error (RunFailed) if something else has that name, or it lies on another file system.
  void publish_as(const std::filesystem::path& target);

 private:
  struct Made {
    std::filesystem::path path;
  };
  explicit ScratchFolder(Made made);

  std::filesystem::path path_;  // empty: published
};

}  // namespace penstock
