/// \file
/// What attention remembers of the tokens before, so that a token that is added costs one token's work.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace penstock {

/// One layer's memory of one sequence, or of several of the same length.
struct KeyValueCache {
  at::Tensor keys;          ///< [microbatch, heads, length, width / heads]; undefined before the first token
  at::Tensor values;        ///< as keys
  std::int64_t length = 0;  ///< tokens so far
};

/// While it lives, the layer that this thread computes reads and extends `cache`: its input holds only what is new.
/// Scopes nest; without one a layer sees whole sequences.
class CacheScope {
 public:
  explicit CacheScope(KeyValueCache& cache);
  CacheScope(const CacheScope&) = delete;
  CacheScope& operator=(const CacheScope&) = delete;
  CacheScope(CacheScope&&) = delete;
  CacheScope& operator=(CacheScope&&) = delete;
  ~CacheScope();

  /// The innermost cache of this thread, or null.
  [[nodiscard]] static KeyValueCache* current();

 private:
  KeyValueCache* outer_;
};

}  // namespace penstock
