#include "penstock/base/scratch_folder.h"

#include <cerrno>
#include <cstdlib>
#include <fmt/format.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

namespace penstock {
namespace {

Error cannot_make(const std::filesystem::path& path, const std::error_code& reason) {
  return run_failed(fmt::format("cannot make the folder {}: {}", path.string(), reason.message()),
                    "a folder that can be made", "check its permissions and the space left");
}

// A path that ends in a slash names the same folder.
std::filesystem::path without_slash(const std::filesystem::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

std::filesystem::path folder_above(const std::filesystem::path& path) {
  const std::filesystem::path above = path.parent_path();
  return above.empty() ? "." : above;
}

}  // namespace

ScratchFolder::ScratchFolder(const std::string& prefix) {
  std::string path = (std::filesystem::temp_directory_path() / (prefix + "-XXXXXX")).string();
  if (::mkdtemp(path.data()) == nullptr)
    throw run_failed(fmt::format("cannot make the folder {}: {}", path, std::generic_category().message(errno)),
                     "a folder for temporary files that can be written",
                     "make space there, or name another with TMPDIR");
  path_ = std::move(path);
}

ScratchFolder::ScratchFolder(Made made) : path_(std::move(made.path)) {}

ScratchFolder ScratchFolder::beside(const std::filesystem::path& target) {
  const std::filesystem::path named = without_slash(target);
  std::error_code failure;
  std::filesystem::create_directories(folder_above(named), failure);
  // A killed process may have left a folder, and a later one may have its number.
  for (int number = 0; !failure; ++number) {
    std::filesystem::path path = named.string() + fmt::format(".writing-{}.{}", ::getpid(), number);
    if (std::filesystem::create_directory(path, failure)) return ScratchFolder(Made{std::move(path)});
  }
  throw cannot_make(named, failure);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

void ScratchFolder::publish_as(const std::filesystem::path& target) {
  const std::filesystem::path named = without_slash(target);
  sync_folder(path_);
  std::error_code failure;
  std::filesystem::rename(path_, named, failure);
  if (failure)
    throw run_failed(fmt::format("cannot rename {} to {}: {}", path_.string(), named.string(), failure.message()),
                     "a name that is free, or an empty folder", "choose another folder");
  path_.clear();
  sync_folder(folder_above(named));
}

}  // namespace penstock
