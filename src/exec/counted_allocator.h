// Host memory of tensors that knows its own size and who counts it, so that counting takes no table.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <c10/core/Allocator.h>
#include <torch/csrc/profiler/orchestration/observer.h>

namespace penstock {

// The bytes that count for one meter. Its own thread adds and takes away without a lock; other threads, which free what
// counts here, write to `elsewhere`.
struct ByteCounter {
  std::int64_t own = 0;
  std::int64_t peak = 0;
  std::int64_t limit = 0;  // 0: none
  std::atomic<std::int64_t> elsewhere{0};

  [[nodiscard]] std::int64_t held() const { return own + elsewhere.load(std::memory_order_relaxed); }
  // Throws Error (RunFailed) beyond the limit. On the meter's thread, or one that works for it.
  void add(std::int64_t bytes);
  // On any thread.
  void take_away(std::int64_t bytes);
};

// The counter of the thread's innermost meter, or null.
[[nodiscard]] ByteCounter*& counter_of_thread();

// A counter of zero bytes for a meter. It outlives its meter as long as any memory counts there.
[[nodiscard]] std::unique_ptr<ByteCounter, void (*)(ByteCounter*)> make_counter();

// What a thread's allocations are told to. libtorch takes whatever is for a profiler, and asks it for its settings, as
// when a layer calls an autograd function of Python: this is one that is switched off. Its own allocator, too, hears
// that nobody profiles memory: of a tensor that it gave before there was a meter and takes back afterwards it would
// print that it does not know the size.
class AllocationListener : public torch::profiler::impl::ProfilerStateBase {
 public:
  AllocationListener()
      : ProfilerStateBase(torch::profiler::impl::ProfilerConfig(torch::profiler::impl::ProfilerState::Disabled)) {}
  torch::profiler::impl::ActiveProfilerType profilerType() final {
    return torch::profiler::impl::ActiveProfilerType::NONE;
  }
  void reportMemoryUsage(void* /*memory*/, std::int64_t /*bytes*/, std::size_t /*allocated*/, std::size_t /*reserved*/,
                         c10::Device /*device*/) override {}
  [[nodiscard]] bool memoryProfilingEnabled() const override { return false; }
};

// By which the counted allocator knows the meter of a thread: libtorch hands it on to the threads that work for it.
class CounterListener final : public AllocationListener {
 public:
  explicit CounterListener(ByteCounter& counter) : counter_(counter) {}
  [[nodiscard]] ByteCounter& counter() const { return counter_; }

 private:
  ByteCounter& counter_;
};

// libtorch's own allocator tells a thread's meter of each tensor through one table behind one lock for all threads,
// twice for each tensor. From the first call on, tensors get memory that holds its size and its counter in front of it.
// What was allocated before is freed as before, and counts nowhere. Any thread may call it.
void install_counted_allocator();

// The size of what this allocator has given, 0 for all other memory.
[[nodiscard]] std::int64_t allocated_bytes(const c10::DataPtr& memory);
// Who counts it; null for all other memory.
[[nodiscard]] ByteCounter* counter_of(const c10::DataPtr& memory);
// From now on it counts there, or, where null, nowhere. Throws Error (RunFailed) beyond the limit; then it counts
// nowhere. Does nothing to other memory. Only one thread at a time may call it for the same memory.
void count_at(const c10::DataPtr& memory, ByteCounter* counter);

}  // namespace penstock
