#include "checkpoint/checkpoint_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/file.h"
#include "penstock/checkpoint/checkpoint.h"

namespace penstock {
namespace {

// Names with a leading dot do not show in listings and do not begin with "step-".
constexpr std::string_view writing_prefix = ".writing-";
constexpr std::string_view deleting_prefix = ".deleting-";

Error failed(const std::string& what, const std::filesystem::path& path, int code) {
  return run_failed(fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(code)),
                    "a folder that can be written", "check its permissions and the free space, and resume the run");
}

/// A fresh folder `<parent>/<name>.<process>.<number>`, with the rights that the user's mask gives (mkdtemp would keep
/// everybody else out of a finished checkpoint).
std::filesystem::path make_unique_folder(const std::filesystem::path& parent, const std::string& name) {
  for (int number = 0;; ++number) {
    const auto path = parent / fmt::format("{}.{}.{}", name, ::getpid(), number);
    if (::mkdir(path.c_str(), 0777) == 0) return path;
    if (errno != EEXIST) throw failed("create", path, errno);
  }
}

struct FolderLock {
  int descriptor = -1;    // −1 where somebody else holds the lock or the folder is gone
  bool supported = true;  // whether this file system has such locks at all
};

FolderLock lock_folder(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) return {};
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return {.descriptor = descriptor, .supported = true};
  const bool held = errno == EWOULDBLOCK;
  ::close(descriptor);
  return {.descriptor = -1, .supported = held};
}

/// Whether the open folder still has this name: it may have been removed between opening and locking.
bool still_there(int descriptor, const std::filesystem::path& path) {
  struct stat open_one{};
  struct stat named{};
  return ::fstat(descriptor, &open_one) == 0 && ::lstat(path.c_str(), &named) == 0 && open_one.st_ino == named.st_ino &&
         open_one.st_dev == named.st_dev;
}

std::optional<std::int64_t> step_of_name(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, problem] = std::from_chars(name.data() + prefix.size(), end, step);
  if (problem != std::errc{} || stop != end || step < 0 || checkpoint_folder_name(step) != name) return std::nullopt;
  return step;
}

}  // namespace

std::string checkpoint_folder_name(std::int64_t step) { return fmt::format("step-{:08}", step); }

std::vector<CheckpointId> named_checkpoints(const std::filesystem::path& folder) {
  std::error_code problem;
  std::vector<CheckpointId> found;
  std::filesystem::directory_iterator entries(folder, problem);
  if (problem == std::errc::no_such_file_or_directory) return found;
  for (const std::filesystem::directory_iterator end; !problem && entries != end; entries.increment(problem)) {
    const auto step = step_of_name(entries->path().filename().string());
    std::error_code unknown;
    if (step && entries->is_directory(unknown)) found.push_back({*step, entries->path()});
  }
  if (problem)
    throw bad_input(fmt::format("cannot list {}: {}", folder.string(), problem.message()), "a folder of checkpoints",
                    "check the path and its permissions");
  std::ranges::sort(found, std::greater{}, &CheckpointId::step);
  return found;
}

TemporaryFolder::TemporaryFolder(const std::filesystem::path& folder, std::int64_t step) {
  // Another writer that cleans up may lock and remove a folder in the moment before it is locked here: then make
  // another.
  while (true) {
    path_ = make_unique_folder(folder, std::string(writing_prefix) + checkpoint_folder_name(step));
    const FolderLock lock = lock_folder(path_);
    lock_ = lock.descriptor;
    if (!lock.supported || (lock_ >= 0 && still_there(lock_, path_))) break;
    if (lock_ >= 0) ::close(std::exchange(lock_, -1));
  }
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void TemporaryFolder::publish_as(const std::filesystem::path& target) {
  sync_folder(path_);
  if (::rename(path_.c_str(), target.c_str()) == 0) {
    path_.clear();
  } else if (errno != EEXIST && errno != ENOTEMPTY) {
    throw failed("rename to", target, errno);
  } else if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) != 0) {
    // A file system that cannot exchange two names: the earlier checkpoint of this step has to go first.
    delete_checkpoint(target);
    if (::rename(path_.c_str(), target.c_str()) != 0) throw failed("rename to", target, errno);
    path_.clear();
  }
  sync_folder(target.parent_path());
}

void delete_checkpoint(const std::filesystem::path& path) {
  const auto unnamed = make_unique_folder(path.parent_path(), std::string(deleting_prefix) + path.filename().string());
  if (::rename(path.c_str(), unnamed.c_str()) != 0) {
    const int code = errno;
    ::rmdir(unnamed.c_str());
    throw failed("rename", path, code);
  }
  sync_folder(path.parent_path());
  std::error_code ignored;
  std::filesystem::remove_all(unnamed, ignored);
}

std::filesystem::path set_aside_checkpoint(const std::filesystem::path& path) {
  const std::string name = "damaged-" + path.filename().string();
  for (int number = 0;; ++number) {
    std::filesystem::path aside = path.parent_path() / (number == 0 ? name : fmt::format("{}.{}", name, number));
    if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, aside.c_str(), RENAME_NOREPLACE) != 0) {
      if (errno == EEXIST) continue;
      std::error_code ignored;
      // A file system that cannot promise to replace nothing; it never replaces a folder that holds something.
      const bool there = std::filesystem::exists(std::filesystem::symlink_status(aside, ignored));
      if (there) continue;
      if (errno != EINVAL || ::rename(path.c_str(), aside.c_str()) != 0) throw failed("rename", path, errno);
    }
    sync_folder(path.parent_path());
    return aside;
  }
}

void remove_abandoned(const std::filesystem::path& folder) {
  std::error_code problem;
  std::vector<std::filesystem::path> temporaries;
  std::filesystem::directory_iterator entries(folder, problem);
  for (const std::filesystem::directory_iterator end; !problem && entries != end; entries.increment(problem))
    temporaries.push_back(entries->path());
  for (const auto& path : temporaries) {
    const std::string name = path.filename().string();
    std::error_code ignored;
    if (name.starts_with(deleting_prefix)) std::filesystem::remove_all(path, ignored);
    if (!name.starts_with(writing_prefix)) continue;
    const FolderLock lock = lock_folder(path);
    if (lock.descriptor < 0) continue;
    std::filesystem::remove_all(path, ignored);
    ::close(lock.descriptor);
  }
}

}  // namespace penstock
