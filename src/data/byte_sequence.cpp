#include "data/byte_sequence.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/mman.h>
#include <system_error>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/read_only_file.h"

namespace penstock {
namespace {

/// Linux lets a process have 65,530 mappings unless it is told otherwise; libtorch needs some of them too.
constexpr std::size_t most_mappings = 30'000;
/// Below this a copy is smaller than the page that a mapping takes.
constexpr std::uint64_t smallest_mapping = 4096;

/// Files of at least this size are mapped: at most `most_mappings` of them.
std::uint64_t mapping_threshold(std::span<const std::filesystem::path> files) {
  std::vector<std::uint64_t> sizes;
  for (const auto& file : files) {
    std::error_code unknown;  // opening the file gives the error
    const std::uintmax_t size = std::filesystem::file_size(file, unknown);
    if (!unknown && size >= smallest_mapping) sizes.push_back(size);
  }
  if (sizes.size() <= most_mappings) return smallest_mapping;
  const auto last_mapped = sizes.begin() + most_mappings - 1;
  std::ranges::nth_element(sizes, last_mapped, std::greater{});
  return *last_mapped + 1;
}

}  // namespace

/// Either a mapped file or the copies of small files that follow each other.
class ByteSequence::Piece {
 public:
  explicit Piece(std::vector<std::byte> copied) : copied_(std::move(copied)), bytes_(copied_) {}

  explicit Piece(const ReadOnlyFile& file) {
    const auto size = static_cast<std::size_t>(file.size());
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (address == MAP_FAILED)
      throw bad_input(fmt::format("cannot map {}: {}", file.name(), std::generic_category().message(errno)),
                      "a file that fits into the address space", "use fewer or smaller files");
    mapped_ = true;
    bytes_ = {static_cast<const std::byte*>(address), size};
  }

  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;
  Piece(Piece&&) = delete;
  Piece& operator=(Piece&&) = delete;
  ~Piece() {
    if (mapped_) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> copied_;
  std::span<const std::byte> bytes_;
  bool mapped_ = false;
};

ByteSequence::ByteSequence(std::span<const std::filesystem::path> files) {
  const std::uint64_t threshold = mapping_threshold(files);
  std::vector<std::byte> copied;
  std::uint64_t size = 0;
  const auto append = [&](std::unique_ptr<const Piece> piece) {
    size += piece->bytes().size();
    pieces_.push_back(std::move(piece));
    ends_.push_back(size);
  };
  const auto append_copied = [&] {
    copied.shrink_to_fit();
    if (!copied.empty()) append(std::make_unique<const Piece>(std::exchange(copied, {})));
  };
  for (const auto& path : files) {
    const ReadOnlyFile file(path);
    if (file.size() >= threshold) {
      append_copied();
      append(std::make_unique<const Piece>(file));
    } else {
      const std::size_t before = copied.size();
      copied.resize(before + static_cast<std::size_t>(file.size()));
      file.read(0, std::span(copied).subspan(before));
    }
  }
  append_copied();
}

ByteSequence::~ByteSequence() = default;

std::uint64_t ByteSequence::size() const { return ends_.empty() ? 0 : ends_.back(); }

void ByteSequence::visit(std::uint64_t begin, std::uint64_t end,
                         const std::function<void(std::span<const std::byte>)>& visit) const {
  check_invariant(begin <= end && end <= size(), "bytes are read within the data");
  auto index = static_cast<std::size_t>(std::ranges::upper_bound(ends_, begin) - ends_.begin());
  while (begin < end) {
    const std::span<const std::byte> piece = pieces_[index]->bytes();
    const std::uint64_t piece_begin = ends_[index] - piece.size();
    const std::uint64_t stop = std::min(end, ends_[index]);
    visit(piece.subspan(static_cast<std::size_t>(begin - piece_begin), static_cast<std::size_t>(stop - begin)));
    begin = stop;
    ++index;
  }
}

void ByteSequence::copy(std::uint64_t offset, std::span<std::byte> into) const {
  visit(offset, offset + into.size(), [&into](std::span<const std::byte> bytes) {
    std::ranges::copy(bytes, into.begin());
    into = into.subspan(bytes.size());
  });
}

}  // namespace penstock
