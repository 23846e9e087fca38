#include "penstock/nn/cache.h"

namespace penstock {
namespace {

thread_local KeyValueCache* innermost = nullptr;

}  // namespace

CacheScope::CacheScope(KeyValueCache& cache) : outer_(innermost) { innermost = &cache; }
CacheScope::~CacheScope() { innermost = outer_; }
KeyValueCache* CacheScope::current() { return innermost; }

}  // namespace penstock
