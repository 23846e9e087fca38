#include "penstock/exec/memory.h"

#include <algorithm>
#include <cstdint>

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace penstock {

struct MemoryMeter::Counter final : c10::MemoryReportingInfoBase {
  std::int64_t held = 0;
  std::int64_t peak = 0;

  void add(std::int64_t bytes) {
    held += bytes;
    peak = std::max(peak, held);
  }
  void reportMemoryUsage(void* /*pointer*/, std::int64_t bytes, std::size_t /*allocated*/, std::size_t /*reserved*/,
                         c10::Device device) override {
    if (device.is_cpu()) add(bytes);
  }
  [[nodiscard]] bool memoryProfilingEnabled() const override { return true; }
};

struct MemoryMeter::Guard {
  explicit Guard(std::shared_ptr<Counter> counter) : guard(c10::DebugInfoKind::PROFILER_STATE, std::move(counter)) {}
  c10::DebugInfoGuard guard;
};

MemoryMeter::MemoryMeter() : counter_(std::make_shared<Counter>()), guard_(std::make_unique<Guard>(counter_)) {}
MemoryMeter::~MemoryMeter() = default;

Bytes MemoryMeter::held() const { return {counter_->held}; }
Bytes MemoryMeter::peak() const { return {counter_->peak}; }
void MemoryMeter::reset_peak() { counter_->peak = counter_->held; }
void MemoryMeter::moved(Bytes bytes) { counter_->add(bytes.count); }

}  // namespace penstock
