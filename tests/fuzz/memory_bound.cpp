#include "memory_bound.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sanitizer/allocator_interface.h>

namespace penstock {
namespace {

// Of the thread that reads. What was allocated before and is freed meanwhile makes it less than nothing.
thread_local std::ptrdiff_t in_use = 0;
thread_local std::ptrdiff_t peak = 0;

void count_allocated(const volatile void* /*memory*/, std::size_t size) {
  in_use += static_cast<std::ptrdiff_t>(size);
  peak = std::max(peak, in_use);
}

void count_freed(const volatile void* memory) {
  if (memory != nullptr) in_use -= static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(memory));
}

}  // namespace

MemoryBound::MemoryBound(std::size_t file_bytes, std::size_t beside_bytes) {
  constexpr std::size_t times = 10;
  most_ = times * file_bytes + beside_bytes;
  static const bool counted = __sanitizer_install_malloc_and_free_hooks(count_allocated, count_freed) != 0;
  if (!counted) std::abort();
  in_use = 0;
  peak = 0;
}

MemoryBound::~MemoryBound() {
  if (peak <= static_cast<std::ptrdiff_t>(most_)) return;
  std::fprintf(stderr, "%td bytes in use at one time, expected at most %zu\n", peak, most_);
  std::abort();
}

}  // namespace penstock
