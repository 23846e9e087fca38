#include "penstock/base/hash.h"

namespace penstock {

std::uint64_t hash_of(const void* bytes, std::size_t size, std::uint64_t before) {
  constexpr std::uint64_t prime = 0x100000001b3ULL;
  const auto* byte = static_cast<const unsigned char*>(bytes);
  std::uint64_t hash = before;
  for (std::size_t index = 0; index < size; ++index) hash = (hash ^ byte[index]) * prime;
  return hash;
}

}  // namespace penstock
