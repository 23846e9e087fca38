#include "penstock/exec/memory.h"

#include <cstddef>
#include <cstdint>
#include <unordered_set>
#include <utility>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "exec/counted_allocator.h"

namespace penstock {
namespace {

// Calls `visit` with the memory of each storage once.
template <class Visit>
void for_each_storage(const std::vector<at::Tensor>& tensors, const Visit& visit) {
  std::unordered_set<const void*> seen;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined() || !tensor.has_storage()) continue;
    const c10::Storage& storage = tensor.storage();
    if (tensors.size() > 1 && !seen.insert(storage.unsafeGetStorageImpl()).second) continue;
    visit(storage.data_ptr());
  }
}

}  // namespace

struct MemoryMeter::Guard {
  explicit Guard(ByteCounter& own)
      : listener(c10::DebugInfoKind::PROFILER_STATE, std::make_shared<CounterListener>(own)),
        outer(std::exchange(counter_of_thread(), &own)) {}
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  Guard(Guard&&) = delete;
  Guard& operator=(Guard&&) = delete;
  ~Guard() { counter_of_thread() = outer; }

  c10::DebugInfoGuard listener;
  ByteCounter* outer;
};

MemoryMeter::MemoryMeter(Bytes limit) : counter_(make_counter()), guard_(std::make_unique<Guard>(*counter_)) {
  install_counted_allocator();
  set_limit(limit);
}
MemoryMeter::~MemoryMeter() = default;

Bytes MemoryMeter::held() const { return {counter_->held()}; }
Bytes MemoryMeter::peak() const { return {counter_->peak}; }
void MemoryMeter::reset_peak() { counter_->peak = counter_->held(); }
void MemoryMeter::set_limit(Bytes limit) { counter_->limit = limit.count; }

void MemoryMeter::take_over(const std::vector<at::Tensor>& tensors) {
  for_each_storage(tensors, [&](const c10::DataPtr& memory) { count_at(memory, counter_.get()); });
}

void MemoryMeter::hand_over(const std::vector<at::Tensor>& tensors) {
  for_each_storage(tensors, [](const c10::DataPtr& memory) { count_at(memory, nullptr); });
}

Bytes MemoryMeter::held_in(const std::vector<at::Tensor>& tensors) const {
  Bytes held;
  for_each_storage(tensors, [&](const c10::DataPtr& memory) {
    if (counter_of(memory) == counter_.get()) held += Bytes{allocated_bytes(memory)};
  });
  return held;
}

struct UncountedMemory::Guard {
  // Which has no counter.
  c10::DebugInfoGuard listener{c10::DebugInfoKind::PROFILER_STATE, std::make_shared<AllocationListener>()};
};

UncountedMemory::UncountedMemory() : guard_(std::make_unique<Guard>()) {}
UncountedMemory::~UncountedMemory() = default;

void keep_freed_memory() {
#if defined(__GLIBC__)
  // Called before there are threads.
  constexpr int large = 1 << 30;
  ::mallopt(M_MMAP_THRESHOLD, large);  // NOLINT(concurrency-mt-unsafe)
  ::mallopt(M_TRIM_THRESHOLD, large);  // NOLINT(concurrency-mt-unsafe)
#endif
}

}  // namespace penstock
