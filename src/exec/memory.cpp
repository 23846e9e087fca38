#include "penstock/exec/memory.h"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "penstock/base/error.h"

#include "exec/counted_allocator.h"

namespace penstock {

struct MemoryMeter::Counter final : c10::MemoryReportingInfoBase {
  std::int64_t held = 0;
  std::int64_t peak = 0;
  std::int64_t limit = 0;

  [[nodiscard]] bool fits(std::int64_t bytes) const { return limit == 0 || bytes <= 0 || held + bytes <= limit; }
  void refuse(std::int64_t bytes) const {
    throw run_failed(fmt::format("{} held and {} more asked for", to_string(Bytes{held}), to_string(Bytes{bytes})),
                     fmt::format("no more than the memory limit of {}", to_string(Bytes{limit})),
                     "use more stages, more microbatches or --recompute full, or raise --memory-limit");
  }
  void add(std::int64_t bytes) {
    held += bytes;
    peak = std::max(peak, held);
  }
  void reportMemoryUsage(void* /*pointer*/, std::int64_t bytes, std::size_t /*allocated*/, std::size_t /*reserved*/,
                         c10::Device device) override {
    if (!device.is_cpu()) return;
    if (!fits(bytes)) refuse(bytes);
    add(bytes);
  }
  [[nodiscard]] bool memoryProfilingEnabled() const override { return true; }
};

struct MemoryMeter::Guard {
  explicit Guard(std::shared_ptr<Counter> counter) : guard(c10::DebugInfoKind::PROFILER_STATE, std::move(counter)) {}
  c10::DebugInfoGuard guard;
};

MemoryMeter::MemoryMeter(Bytes limit)
    : counter_(std::make_shared<Counter>()), guard_(std::make_unique<Guard>(counter_)) {
  install_counted_allocator();
  set_limit(limit);
}
MemoryMeter::~MemoryMeter() = default;

Bytes MemoryMeter::held() const { return {counter_->held}; }
Bytes MemoryMeter::peak() const { return {counter_->peak}; }
void MemoryMeter::reset_peak() { counter_->peak = counter_->held; }
void keep_freed_memory() {
#if defined(__GLIBC__)
  // Called before there are threads.
  constexpr int large = 1 << 30;
  ::mallopt(M_MMAP_THRESHOLD, large);  // NOLINT(concurrency-mt-unsafe)
  ::mallopt(M_TRIM_THRESHOLD, large);  // NOLINT(concurrency-mt-unsafe)
#endif
}

void MemoryMeter::set_limit(Bytes limit) { counter_->limit = limit.count; }
void MemoryMeter::moved(Bytes bytes) {
  if (!counter_->fits(bytes.count)) counter_->refuse(bytes.count);
  counter_->add(bytes.count);
}

}  // namespace penstock
