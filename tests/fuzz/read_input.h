// What the fuzz targets of text files share.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "penstock/base/error.h"

namespace penstock {

// A large file out of a small input: behind the first byte stand a beginning, a piece and an end, as long as the next
// two bytes say; a first byte of at least 240 repeats the piece until it fills as many quarters of a MiB as it is
// beyond that, and one more. Otherwise the input, as it is behind the first byte.
[[nodiscard]] std::string text_of_input(const unsigned char* data, std::size_t size);

// A file without a name that holds the text, until it is destroyed.
class UnnamedFile {
 public:
  explicit UnnamedFile(std::string_view content);
  UnnamedFile(const UnnamedFile&) = delete;
  UnnamedFile& operator=(const UnnamedFile&) = delete;
  UnnamedFile(UnnamedFile&&) = delete;
  UnnamedFile& operator=(UnnamedFile&&) = delete;
  ~UnnamedFile();

  [[nodiscard]] std::filesystem::path path() const;

 private:
  int descriptor_;
};

// A refusal is one line that somebody can read, and any other exception ends the program.
template <class Call>
void refuse_in_one_line(Call&& call) {
  constexpr std::size_t longest = 4'000;
  try {
    call();
  } catch (const Error& error) {
    const std::string_view text = error.what();
    if (error.kind() != ErrorKind::BadInput || text.find('\n') != std::string_view::npos || text.size() > longest)
      std::abort();
  }
}

}  // namespace penstock
