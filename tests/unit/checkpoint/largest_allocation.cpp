#include "largest_allocation.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {

thread_local std::size_t largest = 0;

}  // namespace

// Clang's thread sanitizer has a `new` that cannot be replaced: nothing is counted under it.
#if !defined(PENSTOCK_SANITIZED_THREAD)
void* operator new(std::size_t size) {
  largest = std::max(largest, size);
  if (void* memory = std::malloc(std::max<std::size_t>(size, 1))) return memory;
  throw std::bad_alloc();
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }
#endif

namespace penstock {

void reset_largest_allocation() { largest = 0; }

std::size_t largest_allocation() { return largest; }

}  // namespace penstock
