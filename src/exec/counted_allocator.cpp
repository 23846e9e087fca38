#include "exec/counted_allocator.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <mutex>
#include <new>
#include <typeinfo>
#include <utility>
#include <vector>

#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "penstock/base/error.h"
#include "penstock/base/types.h"

namespace penstock {
namespace {

// As libtorch aligns its own, for its vectorised kernels.
constexpr std::size_t alignment = c10::gAlignment;
constexpr std::size_t header_bytes = alignment;

struct Header {
  std::size_t bytes;     // of the tensor's memory, which follows
  void* block;           // where what was allocated begins
  ByteCounter* counter;  // null where nobody counts it
};
static_assert(sizeof(Header) <= header_bytes);

Header* header_of(void* memory) { return reinterpret_cast<Header*>(static_cast<std::byte*>(memory) - header_bytes); }

thread_local ByteCounter* innermost_counter = nullptr;

// As libtorch's allocator tells it: to the thread's meter, or to a profiler of libtorch's. Returns who counts it.
ByteCounter* report(void* memory, std::int64_t bytes) {
  auto* listener =
      static_cast<c10::MemoryReportingInfoBase*>(c10::ThreadLocalDebugInfo::get(c10::DebugInfoKind::PROFILER_STATE));
  if (listener == nullptr) return nullptr;
  if (typeid(*listener) == typeid(CounterListener)) {
    // What is freed tells its counter itself.
    if (bytes < 0) return nullptr;
    ByteCounter& counter = static_cast<CounterListener*>(listener)->counter();
    counter.add(bytes);
    return &counter;
  }
  if (listener->memoryProfilingEnabled()) listener->reportMemoryUsage(memory, bytes, 0, 0, at::kCPU);
  return nullptr;
}

void release(void* memory) {
  if (memory == nullptr) return;
  const Header* header = header_of(memory);
  const auto bytes = static_cast<std::int64_t>(header->bytes);
  if (header->counter != nullptr)
    header->counter->take_away(bytes);
  else
    report(memory, -bytes);
  std::free(header->block);
}

Error out_of_memory(std::size_t bytes) {
  return run_failed(fmt::format("no memory for {} more", to_string(Bytes{static_cast<std::int64_t>(bytes)})),
                    "as much as a tensor asks for", "use more stages, more microbatches or `recompute` full");
}

class CountedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, at::kCPU};
    // Aligned by hand: allocators take several times as long where they are asked to align.
    std::unique_ptr<void, decltype(&std::free)> block(std::malloc(header_bytes + alignment + bytes), &std::free);
    if (!block) throw out_of_memory(bytes);
    void* start = block.get();
    std::size_t room = header_bytes + alignment + bytes;
    auto* header = new (std::align(alignment, header_bytes + bytes, start, room)) Header{bytes, nullptr, nullptr};
    void* memory = reinterpret_cast<std::byte*>(header) + header_bytes;
    // Throws where the meter's limit is reached.
    header->counter = report(memory, static_cast<std::int64_t>(bytes));
    header->block = block.release();
    return {memory, memory, &release, at::kCPU};
  }
  // For oneDNN, which holds its memory without a context.
  [[nodiscard]] c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

bool is_ours(const c10::DataPtr& memory) { return memory.get_deleter() == &release && memory.get_context() != nullptr; }

// Counters whose meters are gone. Memory that outlives its meter still names its counter, so that a counter is used
// again only when nothing counts there any more, and is never destroyed, as the allocator itself.
class RetiredCounters {
 public:
  ByteCounter* take() {
    const std::scoped_lock lock(mutex_);
    const auto empty = std::find_if(counters_.begin(), counters_.end(), [](const auto* c) { return c->held() == 0; });
    if (empty == counters_.end()) return new ByteCounter;  // NOLINT(cppcoreguidelines-owning-memory)
    ByteCounter* counter = *empty;
    counters_.erase(empty);
    counter->own = counter->peak = counter->limit = 0;
    counter->elsewhere.store(0, std::memory_order_relaxed);
    return counter;
  }
  void put(ByteCounter* counter) {
    const std::scoped_lock lock(mutex_);
    counters_.push_back(counter);
  }

 private:
  std::mutex mutex_;
  std::vector<ByteCounter*> counters_;
};

RetiredCounters& retired_counters() {
  static auto* const counters = new RetiredCounters;  // NOLINT(cppcoreguidelines-owning-memory)
  return *counters;
}

}  // namespace

void ByteCounter::add(std::int64_t bytes) {
  if (limit != 0 && held() + bytes > limit)
    throw run_failed(fmt::format("{} held and {} more asked for", to_string(Bytes{held()}), to_string(Bytes{bytes})),
                     fmt::format("no more than the memory limit of {}", to_string(Bytes{limit})),
                     "use more stages, more microbatches or `recompute` full, or raise `memory_limit`");
  if (counter_of_thread() == this)
    own += bytes;
  else
    elsewhere.fetch_add(bytes, std::memory_order_relaxed);
  peak = std::max(peak, held());
}

void ByteCounter::take_away(std::int64_t bytes) {
  if (counter_of_thread() == this)
    own -= bytes;
  else
    elsewhere.fetch_sub(bytes, std::memory_order_relaxed);
}

ByteCounter*& counter_of_thread() { return innermost_counter; }

std::unique_ptr<ByteCounter, void (*)(ByteCounter*)> make_counter() {
  return {retired_counters().take(), [](ByteCounter* counter) { retired_counters().put(counter); }};
}

void install_counted_allocator() {
  // Never destroyed: tensors outlive the end of main.
  static c10::Allocator* const allocator = [] {
    auto* made = new CountedAllocator;  // NOLINT(cppcoreguidelines-owning-memory)
    c10::SetCPUAllocator(made);
    return made;
  }();
  static_cast<void>(allocator);
}

std::int64_t allocated_bytes(const c10::DataPtr& memory) {
  return is_ours(memory) ? static_cast<std::int64_t>(header_of(memory.get_context())->bytes) : 0;
}

ByteCounter* counter_of(const c10::DataPtr& memory) {
  return is_ours(memory) ? header_of(memory.get_context())->counter : nullptr;
}

void count_at(const c10::DataPtr& memory, ByteCounter* counter) {
  if (!is_ours(memory)) return;
  Header* header = header_of(memory.get_context());
  if (header->counter == counter) return;
  const auto bytes = static_cast<std::int64_t>(header->bytes);
  if (header->counter != nullptr) std::exchange(header->counter, nullptr)->take_away(bytes);
  if (counter == nullptr) return;
  counter->add(bytes);
  header->counter = counter;
}

}  // namespace penstock
