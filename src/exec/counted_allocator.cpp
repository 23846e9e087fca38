#include "exec/counted_allocator.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fmt/format.h>
#include <memory>
#include <new>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "penstock/base/error.h"
#include "penstock/base/units.h"

namespace penstock {
namespace {

// As libtorch aligns its own, for its vectorised kernels.
constexpr std::size_t alignment = c10::gAlignment;
constexpr std::size_t header_bytes = alignment;

struct Header {
  std::size_t bytes;  // of the tensor's memory, which follows
  void* block;        // where what was allocated begins
};
static_assert(sizeof(Header) <= header_bytes);

// As libtorch's allocator tells it, to the thread's meter or to a profiler of libtorch's.
void report(void* memory, std::int64_t bytes) {
  auto* listener =
      static_cast<c10::MemoryReportingInfoBase*>(c10::ThreadLocalDebugInfo::get(c10::DebugInfoKind::PROFILER_STATE));
  if (listener != nullptr && listener->memoryProfilingEnabled())
    listener->reportMemoryUsage(memory, bytes, 0, 0, at::kCPU);
}

void release(void* memory) {
  if (memory == nullptr) return;
  const auto* header = reinterpret_cast<Header*>(static_cast<std::byte*>(memory) - header_bytes);
  report(memory, -static_cast<std::int64_t>(header->bytes));
  std::free(header->block);
}

Error out_of_memory(std::size_t bytes) {
  return run_failed(fmt::format("no memory for {} more", to_string(Bytes{static_cast<std::int64_t>(bytes)})),
                    "as much as a tensor asks for", "use more stages, more microbatches or --recompute full");
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
    auto* header = new (std::align(alignment, header_bytes + bytes, start, room)) Header{bytes, nullptr};
    void* memory = reinterpret_cast<std::byte*>(header) + header_bytes;
    // Throws where the meter's limit is reached.
    report(memory, static_cast<std::int64_t>(bytes));
    header->block = block.release();
    return {memory, memory, &release, at::kCPU};
  }
  // For oneDNN, which holds its memory without a context.
  [[nodiscard]] c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

}  // namespace

void install_counted_allocator() {
  // Never destroyed: tensors outlive the end of main.
  static c10::Allocator* const allocator = [] {
    auto* made = new CountedAllocator;  // NOLINT(cppcoreguidelines-owning-memory)
    c10::SetCPUAllocator(made);
    return made;
  }();
  static_cast<void>(allocator);
}

}  // namespace penstock
