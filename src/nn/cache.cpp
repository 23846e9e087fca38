#include "penstock/nn/layer.h"

namespace penstock {
namespace {

thread_local KeyValueCache* innermost_cache = nullptr;

}  // namespace

CacheScope::CacheScope(KeyValueCache& cache) : outer_(innermost_cache) { innermost_cache = &cache; }
CacheScope::~CacheScope() { innermost_cache = outer_; }
KeyValueCache* CacheScope::current() { return innermost_cache; }

}  // namespace penstock
