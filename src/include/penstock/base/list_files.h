/// \file
/// The files that a user's paths stand for.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

namespace penstock {

/// Each path in turn: a file as it is, a folder as all regular files in it and below, sorted by the bytes of their
/// paths. Within a folder, symbolic links and hidden files and folders (a name that begins with a dot) are passed over:
/// what they lead to is either read already or no part of the folder.
/// \throws Error (BadInput) for a path that does not exist, is neither file nor folder or cannot be read, and for a
///   folder in which there is no file.
[[nodiscard]] std::vector<std::filesystem::path> list_files(std::span<const std::filesystem::path> paths);

}  // namespace penstock
