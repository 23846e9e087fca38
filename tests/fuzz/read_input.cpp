#include "read_input.h"

#include <algorithm>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

namespace penstock {

std::string text_of_input(const unsigned char* data, std::size_t size) {
  if (size == 0) return {};
  constexpr unsigned char first_repeating = 240;
  constexpr std::size_t bytes_before = 3;
  const std::string_view rest(reinterpret_cast<const char*>(data), size);
  if (data[0] < first_repeating || size <= bytes_before) return std::string(rest.substr(1));
  const std::string_view parts = rest.substr(bytes_before);
  const std::string_view begin = parts.substr(0, data[1]);
  const std::string_view piece = parts.substr(begin.size(), data[2]);
  const std::size_t most = static_cast<std::size_t>(data[0] - first_repeating + 1) << 18U;
  std::string text(begin);
  while (!piece.empty() && text.size() + piece.size() <= most) text += piece;
  return text + std::string(parts.substr(begin.size() + piece.size()));
}

UnnamedFile::UnnamedFile(std::string_view content) : descriptor_(::memfd_create("input", MFD_CLOEXEC)) {
  const auto size = static_cast<ssize_t>(content.size());
  if (descriptor_ < 0 || ::write(descriptor_, content.data(), content.size()) != size) std::abort();
}

UnnamedFile::~UnnamedFile() { ::close(descriptor_); }

std::filesystem::path UnnamedFile::path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

}  // namespace penstock
