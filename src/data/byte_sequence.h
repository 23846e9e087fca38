/// \file
/// Many files as one row of bytes, most of which stay on the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace penstock {

/// The content of files, one behind the other. Large files are mapped into memory, small ones copied, as the number of
/// mappings that a process may have is limited. Immutable; const members may be called from any thread.
class ByteSequence {
 public:
  /// \throws Error (BadInput) that names the file which cannot be read.
  explicit ByteSequence(std::span<const std::filesystem::path> files);
  ByteSequence(const ByteSequence&) = delete;
  ByteSequence& operator=(const ByteSequence&) = delete;
  ByteSequence(ByteSequence&&) = delete;
  ByteSequence& operator=(ByteSequence&&) = delete;
  ~ByteSequence();

  [[nodiscard]] std::uint64_t size() const;

  /// Calls `visit` with the bytes from `begin` up to `end`, in order, in as many pieces as they lie in.
  void visit(std::uint64_t begin, std::uint64_t end,
             const std::function<void(std::span<const std::byte>)>& visit) const;

  /// Fills `into` from `offset` on.
  void copy(std::uint64_t offset, std::span<std::byte> into) const;

 private:
  class Piece;
  std::vector<std::unique_ptr<const Piece>> pieces_;
  std::vector<std::uint64_t> ends_;  // where each piece ends in the whole
};

}  // namespace penstock
