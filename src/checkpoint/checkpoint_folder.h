/// \file
/// The names in a run's folder of checkpoints, and the two ways in which a folder of it comes and goes: written under a
/// temporary name and renamed, renamed to a temporary name and removed. What has a temporary name is never a
/// checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "penstock/checkpoint/checkpoint.h"

namespace penstock {

/// "step-00000300": at least 8 digits.
[[nodiscard]] std::string checkpoint_folder_name(std::int64_t step);

/// Everything in `folder` that has the name of a checkpoint, whole or not, newest first; empty where there is no
/// folder.
/// \throws Error (BadInput) where it cannot be listed.
[[nodiscard]] std::vector<CheckpointId> named_checkpoints(const std::filesystem::path& folder);

/// A folder with a temporary name that is locked for as long as this lives, so that nobody takes it for abandoned. The
/// lock goes with the process, however that ends.
class TemporaryFolder {
 public:
  /// Creates it within `folder`. \throws Error (RunFailed)
  TemporaryFolder(const std::filesystem::path& folder, std::int64_t step);
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  TemporaryFolder(TemporaryFolder&&) = delete;
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  /// Removes it with all that is in it, unless it was published.
  ~TemporaryFolder();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// Renames it to `target`, in one step also where there is a `target`, which is then removed. \throws Error
  /// (RunFailed)
  void publish_as(const std::filesystem::path& target);

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

/// Takes the name from a checkpoint and removes it. \throws Error (RunFailed) where it cannot be renamed.
void delete_checkpoint(const std::filesystem::path& path);

/// Removes the temporary folders of writers that are no more, and what is left of deleted checkpoints. Does what it can
/// and reports nothing: what it leaves is in nobody's way.
void remove_abandoned(const std::filesystem::path& folder);

}  // namespace penstock
