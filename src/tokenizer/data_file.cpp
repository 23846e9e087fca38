#include "tokenizer/data_file.h"

#include <algorithm>
#include <fmt/format.h>
#include <new>
#include <zlib.h>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::size_t packed_piece = std::size_t{64} << 10U;
// zlib's way to ask for gzip with the largest window.
constexpr int gzip_window = 15 + 16;

}  // namespace

struct DataFile::Unpacking {
  z_stream stream = {};
  std::vector<std::byte> packed = std::vector<std::byte>(packed_piece);
  bool in_member = false;  // a file may have several, one behind the other
  bool has_member = false;

  Unpacking() {
    if (inflateInit2(&stream, gzip_window) != Z_OK) throw std::bad_alloc();
  }
  Unpacking(const Unpacking&) = delete;
  Unpacking& operator=(const Unpacking&) = delete;
  Unpacking(Unpacking&&) = delete;
  Unpacking& operator=(Unpacking&&) = delete;
  ~Unpacking() { inflateEnd(&stream); }
};

DataFile::DataFile(const std::filesystem::path& path) : file_(path) {
  if (path.extension() == ".gz") unpacking_ = std::make_unique<Unpacking>();
}

DataFile::~DataFile() = default;

std::string DataFile::name() const { return shortened(file_.name(), 300); }

std::size_t DataFile::read(std::span<char> into) {
  return unpacking_ ? read_packed(into) : read_plain(std::as_writable_bytes(into));
}

std::size_t DataFile::read_plain(std::span<std::byte> into) {
  const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), file_.size() - offset_));
  file_.read(offset_, into.first(size));
  offset_ += size;
  return size;
}

std::size_t DataFile::read_packed(std::span<char> into) {
  Unpacking& unpacking = *unpacking_;
  z_stream& stream = unpacking.stream;
  const auto damaged = [&](const char* how) {
    return bad_input(fmt::format("{} {}", name(), how), "a whole file of gzip", "pack or copy it again");
  };
  stream.next_out = reinterpret_cast<Bytef*>(into.data());
  stream.avail_out = static_cast<uInt>(into.size());
  while (stream.avail_out > 0) {
    if (stream.avail_in == 0) {
      const std::size_t size = read_plain(unpacking.packed);
      if (size == 0 && (unpacking.in_member || !unpacking.has_member)) throw damaged("is cut short");
      if (size == 0) break;
      stream.next_in = reinterpret_cast<Bytef*>(unpacking.packed.data());
      stream.avail_in = static_cast<uInt>(size);
    }
    unpacking.in_member = true;
    unpacking.has_member = true;
    const int result = inflate(&stream, Z_NO_FLUSH);
    if (result == Z_STREAM_END) {
      unpacking.in_member = false;
      inflateReset(&stream);
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      throw damaged("is damaged, or not packed by gzip");
    }
  }
  return into.size() - stream.avail_out;
}

}  // namespace penstock
