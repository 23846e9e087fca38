#include "penstock/base/file.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/read_only_file.h"
#include "penstock/base/types.h"

namespace penstock {
namespace {

constexpr std::size_t longest_shown = 300;

[[noreturn]] void throw_errno(const std::string& what, const std::filesystem::path& path) {
  const int code = errno;
  const bool full = code == ENOSPC || code == EFBIG || code == EDQUOT;
  throw run_failed(
      fmt::format("{} {}: {}", what, shortened(path.string(), longest_shown), std::generic_category().message(code)),
      "a place that can be written",
      full ? "free some space and resume the run" : "check the path and its permissions");
}

}  // namespace

bool is_there(const std::filesystem::path& path) noexcept {
  std::error_code unknown;
  return std::filesystem::exists(path, unknown);
}

std::string read_file(const std::filesystem::path& path, std::int64_t most) {
  const ReadOnlyFile file(path);
  const std::string name = shortened(path.string(), longest_shown);
  const auto too_long = [&] {
    return bad_input(fmt::format("{} is longer than {}", name, to_string(Bytes{most})), "a file of its kind",
                     "check the path");
  };
  if (file.size() > static_cast<std::uint64_t>(most)) throw too_long();
  // Files of /proc say that they are empty, and others may grow meanwhile.
  std::string content(static_cast<std::size_t>(file.size()) + 1, '\0');
  std::size_t size = 0;
  while (true) {
    const ssize_t got =
        ::pread(file.descriptor(), content.data() + size, content.size() - size, static_cast<off_t>(size));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw bad_input(fmt::format("cannot read {}: {}", name, std::generic_category().message(errno)),
                      "a readable file", "check the path and its permissions");
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
    if (size > static_cast<std::size_t>(most)) throw too_long();
    if (size == content.size()) content.resize(std::min(2 * size, static_cast<std::size_t>(most) + 1));
  }
  content.resize(size);
  return content;
}

FileWriter::FileWriter(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_errno("cannot create", path_);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::write(const void* data, std::size_t size) {
  const auto* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, next, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_errno("cannot write", path_);
    next += written;
    size -= static_cast<std::size_t>(written);
  }
}

void FileWriter::sync_and_close() {
  if (::fsync(descriptor_) != 0) throw_errno("cannot sync", path_);
  const int closing = std::exchange(descriptor_, -1);
  if (::close(closing) != 0) throw_errno("cannot close", path_);
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw_errno("cannot open", folder);
  const int result = ::fsync(descriptor);
  ::close(descriptor);
  if (result != 0) throw_errno("cannot sync", folder);
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  // A device or a pipe (/dev/stdout) is written into: a rename would put a file in its place.
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    FileWriter(path).write(content.data(), content.size());
    return;
  }
  // A link stays one: the file that it leads to is replaced.
  std::filesystem::path target = path;
  if (std::filesystem::exists(status) && std::filesystem::is_symlink(path, ignored))
    target = std::filesystem::canonical(path, ignored);
  std::filesystem::path temporary = target;
  temporary += fmt::format(".{}.tmp", ::getpid());
  try {
    FileWriter writer(temporary);
    writer.write(content.data(), content.size());
    writer.sync_and_close();
    if (::rename(temporary.c_str(), target.c_str()) != 0) throw_errno("cannot rename to", target);
  } catch (...) {
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  const auto folder = target.parent_path();
  sync_folder(folder.empty() ? std::filesystem::path(".") : folder);
}

}  // namespace penstock
