// What a reader may take of memory for a file: a few times its size.
#pragma once

#include <cstddef>

namespace penstock {

// Ends the program if more was allocated at one time, while it lived, than 10 times the file and so many bytes beside.
class MemoryBound {
 public:
  explicit MemoryBound(std::size_t file_bytes, std::size_t beside_bytes = 50'000'000);
  MemoryBound(const MemoryBound&) = delete;
  MemoryBound& operator=(const MemoryBound&) = delete;
  MemoryBound(MemoryBound&&) = delete;
  MemoryBound& operator=(MemoryBound&&) = delete;
  ~MemoryBound();

 private:
  std::size_t most_;
};

}  // namespace penstock
