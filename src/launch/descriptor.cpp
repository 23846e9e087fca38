#include "descriptor.h"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <system_error>
#include <unistd.h>

#include "penstock/base/error.h"

namespace penstock::launching {

Descriptor::Descriptor(int opened, const char* what) : number_(opened) {
  if (opened >= 0 && opened <= STDERR_FILENO) {
    number_ = ::fcntl(opened, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    ::close(opened);
  }
  if (number_ >= 0) return;
  const int code = errno;
  throw run_failed(fmt::format("cannot open {}: {}", what, std::generic_category().message(code)),
                   "room for another descriptor", "raise the limit (ulimit -n) or start fewer processes");
}

void Descriptor::close() {
  if (number_ >= 0) ::close(std::exchange(number_, -1));
}

Pipe::Pipe() {
  std::array<int, 2> ends = {-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) ends = {-1, -1};
  read_end = Descriptor(ends[0], "a pipe");
  write_end = Descriptor(ends[1], "a pipe");
}

}  // namespace penstock::launching
