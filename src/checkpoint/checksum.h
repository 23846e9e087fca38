/// \file
/// The checksum of everything in a checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "penstock/base/read_only_file.h"

namespace penstock {

/// What a file should be.
struct FileSum {
  std::uint64_t bytes = 0;
  std::string checksum;  ///< See Checksum::text.

  friend bool operator==(const FileSum&, const FileSum&) = default;
};

/// XXH64 with seed 0 over bytes that come piece by piece.
class Checksum {
 public:
  Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;
  Checksum(Checksum&&) = delete;
  Checksum& operator=(Checksum&&) = delete;
  ~Checksum();

  void add(const void* data, std::size_t size);
  /// The checksum of all bytes so far, as `xxh64sum` prints it: 16 hexadecimal digits.
  [[nodiscard]] std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The checksum of the whole file.
[[nodiscard]] std::string checksum_of(const ReadOnlyFile& file);

}  // namespace penstock
