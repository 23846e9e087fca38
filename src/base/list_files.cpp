#include "penstock/base/list_files.h"

#include <algorithm>
#include <fmt/format.h>
#include <string>
#include <system_error>

#include "penstock/base/error.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

Error unreadable(const fs::path& path, const std::error_code& problem) {
  return bad_input(fmt::format("cannot read {}: {}", path.string(), problem.message()), "readable files and folders",
                   "check the path and its permissions");
}

void add_folder(const fs::path& folder, std::vector<fs::path>& files) {
  const std::size_t before = files.size();
  std::vector<fs::path> open = {folder};
  // Not recursive_directory_iterator: after an error it does not tell which folder cannot be read.
  while (!open.empty()) {
    const fs::path current = std::move(open.back());
    open.pop_back();
    std::error_code problem;
    fs::directory_iterator entries(current, problem);
    for (const fs::directory_iterator end; !problem && entries != end; entries.increment(problem)) {
      if (entries->path().filename().string().starts_with('.')) continue;
      const fs::file_status status = entries->symlink_status(problem);
      if (problem) break;
      if (fs::is_directory(status)) open.push_back(entries->path());
      if (fs::is_regular_file(status)) files.push_back(entries->path());
    }
    if (problem) throw unreadable(current, problem);
  }
  if (files.size() == before)
    throw bad_input(fmt::format("{} holds no file", folder.string()),
                    "a folder with files in it or below (symbolic links and hidden names do not count)",
                    "name the files themselves or another folder");
  std::ranges::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end(), {},
                    [](const fs::path& path) -> const std::string& { return path.native(); });
}

}  // namespace

std::vector<fs::path> list_files(std::span<const fs::path> paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code problem;
    const fs::file_status status = fs::status(path, problem);
    if (status.type() == fs::file_type::not_found)
      throw bad_input("there is no file or folder " + path.string(), "a path that exists", "check how it is spelled");
    if (problem) throw unreadable(path, problem);
    if (fs::is_directory(status)) {
      add_folder(path, files);
    } else if (fs::is_regular_file(status)) {
      files.push_back(path);
    } else {
      throw bad_input(path.string() + " is neither a file nor a folder", "files and folders",
                      "save its content to a file and name that");
    }
  }
  return files;
}

}  // namespace penstock
