#include "parity/checked_device.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/detail/HPUHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

namespace penstock {
namespace {

constexpr int devices = 2;

using StreamKey = std::pair<int, std::int64_t>;  // device and number
using Clocks = std::map<StreamKey, std::int64_t>;

void join(Clocks& into, const Clocks& other) {
  for (const auto& [stream, time] : other) into[stream] = std::max(into[stream], time);
}

// A piece of memory: by stream, when it was last read and written there.
struct Block {
  Clocks written;
  Clocks read;
  StreamKey home;
  std::vector<StreamKey> announced;  // recordDataPtrOnStream
};

// Everything that is known of the order of things.
class Order {
 public:
  void touch(const void* memory, const StreamKey& stream, bool writes, const std::string& what) {
    const std::scoped_lock lock(mutex_);
    const auto found = blocks_.find(memory);
    if (found == blocks_.end()) return;
    Block& block = found->second;
    check(block.written, stream, what + " meets a write");
    if (writes) check(block.read, stream, what + " overwrites what is read");
    if (stream != block.home &&
        std::find(block.announced.begin(), block.announced.end(), stream) == block.announced.end())
      unannounced_[memory] = fmt::format("{} on {}:{}, a stream that the memory's allocator knows nothing of", what,
                                         stream.first, stream.second);
    (writes ? block.written : block.read)[stream] = ++clocks_[stream][stream];
  }
  void allocated(const void* memory, const StreamKey& stream) {
    const std::scoped_lock lock(mutex_);
    blocks_[memory] = {{}, {}, stream, {}};
  }
  void freed(const void* memory) {
    const std::scoped_lock lock(mutex_);
    const auto block = blocks_.find(memory);
    const auto found = unannounced_.find(memory);
    if (found != unannounced_.end()) {
      // Harmless where the memory's own stream, or the host, has waited for the other.
      const StreamKey home = block->second.home;
      for (const Clocks* used : {&block->second.read, &block->second.written})
        check(*used, home, "freed; " + found->second);
      unannounced_.erase(found);
    }
    blocks_.erase(memory);
  }
  void announce(const void* memory, const StreamKey& stream) {
    const std::scoped_lock lock(mutex_);
    const auto found = blocks_.find(memory);
    if (found != blocks_.end()) found->second.announced.push_back(stream);
    unannounced_.erase(memory);
  }
  Clocks record(const StreamKey& stream) {
    const std::scoped_lock lock(mutex_);
    Clocks& clocks = clocks_[stream];
    join(clocks, done_);
    return clocks;
  }
  void block(const StreamKey& stream, const Clocks& event) {
    const std::scoped_lock lock(mutex_);
    join(clocks_[stream], event);
  }
  // What is done is done for all.
  void wait(const Clocks& event) {
    const std::scoped_lock lock(mutex_);
    join(done_, event);
    ++counts_.host_waits;
  }
  // Whether the host knows that it is: as if every device were far behind.
  bool is_done(const Clocks& event) {
    const std::scoped_lock lock(mutex_);
    return std::ranges::all_of(event, [&](const auto& reached) { return done_[reached.first] >= reached.second; });
  }
  void count_copy() {
    const std::scoped_lock lock(mutex_);
    ++counts_.copies_between;
  }
  CheckedCounts counts() {
    const std::scoped_lock lock(mutex_);
    return counts_;
  }
  std::vector<std::string> take() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(races_, {});
  }

 private:
  void check(const Clocks& used, const StreamKey& stream, const std::string& what) {
    for (const auto& [other, time] : used) {
      if (other == stream || clocks_[stream][other] >= time || done_[other] >= time) continue;
      races_.push_back(fmt::format("{} on stream {}:{}, which has not waited for {}:{}", what, stream.first,
                                   stream.second, other.first, other.second));
    }
  }

  std::mutex mutex_;
  std::map<StreamKey, Clocks> clocks_;
  Clocks done_;
  std::unordered_map<const void*, Block> blocks_;
  std::unordered_map<const void*, std::string> unannounced_;
  std::vector<std::string> races_;
  CheckedCounts counts_;
};

// Never taken down: libtorch's threads may outlive main.
Order& order() {
  static auto* const kept = new Order;  // NOLINT(cppcoreguidelines-owning-memory)
  return *kept;
}

thread_local int current_device = 0;
thread_local std::array<std::int64_t, devices> current_stream{};
std::atomic<std::int64_t> next_stream{1};

// Never negative here.
int number_of(c10::DeviceIndex device) { return static_cast<unsigned char>(device); }

StreamKey key_of(const c10::Stream& stream) { return {stream.device_index(), stream.id()}; }
StreamKey current_on(int device) { return {device, current_stream[static_cast<std::size_t>(device)]}; }

c10::Stream stream_of(c10::Device device, std::int64_t number) {
  return c10::Stream(c10::Stream::UNSAFE, device, number);
}

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  [[nodiscard]] c10::DeviceType type() const override { return checked_device; }
  [[nodiscard]] c10::Device exchangeDevice(c10::Device device) const override {
    return {checked_device, static_cast<c10::DeviceIndex>(std::exchange(current_device, number_of(device.index())))};
  }
  [[nodiscard]] c10::Device getDevice() const override {
    return {checked_device, static_cast<c10::DeviceIndex>(current_device)};
  }
  void setDevice(c10::Device device) const override { current_device = number_of(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current_device = number_of(device.index()); }
  [[nodiscard]] c10::Stream getStream(c10::Device device) const override {
    const int index = device.has_index() ? device.index() : current_device;
    return stream_of({checked_device, static_cast<c10::DeviceIndex>(index)}, current_on(index).second);
  }
  [[nodiscard]] c10::Stream getDefaultStream(c10::Device device) const override { return stream_of(device, 0); }
  [[nodiscard]] c10::Stream getStreamFromGlobalPool(c10::Device device, bool /*high*/) const override {
    return stream_of(device, next_stream++);
  }
  [[nodiscard]] c10::Stream exchangeStream(c10::Stream stream) const override {
    const auto index = static_cast<std::size_t>(number_of(stream.device_index()));
    return stream_of(stream.device(), std::exchange(current_stream[index], stream.id()));
  }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex /*index*/,
              c10::EventFlag /*flag*/) const override {
    if (*event == nullptr) *event = new Clocks;  // NOLINT(cppcoreguidelines-owning-memory)
    *static_cast<Clocks*>(*event) = order().record(key_of(stream));
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) order().block(key_of(stream), *static_cast<Clocks*>(event));
  }
  [[nodiscard]] bool queryEvent(void* event) const override {
    return event == nullptr || order().is_done(*static_cast<Clocks*>(event));
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) order().wait(*static_cast<Clocks*>(event));
  }
  void synchronizeStream(const c10::Stream& stream) const override { order().wait(order().record(key_of(stream))); }
  void destroyEvent(void* event, c10::DeviceIndex /*index*/) const noexcept override {
    delete static_cast<Clocks*>(event);  // NOLINT(cppcoreguidelines-owning-memory)
  }
  // One millisecond for all that the streams have done between the two.
  [[nodiscard]] double elapsedTime(void* first, void* second, c10::DeviceIndex /*index*/) const override {
    const auto done = [](void* event) {
      double sum = 0;
      for (const auto& [stream, time] : *static_cast<Clocks*>(event)) sum += static_cast<double>(time);
      return sum;
    };
    return done(second) - done(first);
  }
  void recordDataPtrOnStream(const c10::DataPtr& memory, const c10::Stream& stream) const override {
    order().announce(memory.get(), key_of(stream));
  }
  [[nodiscard]] c10::DeviceIndex deviceCount() const noexcept override { return devices; }
};

class Memory final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    auto* block = new Piece{std::malloc(std::max<std::size_t>(bytes, 1)), static_cast<std::int64_t>(bytes),
                            static_cast<std::size_t>(current_device), this};
    order().allocated(block->memory, current_on(current_device));
    add(*block, block->bytes);
    return {block->memory, block, &free_piece, {checked_device, static_cast<c10::DeviceIndex>(current_device)}};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t /*pool*/) override {}
  void recordStream(const c10::DataPtr& memory, c10::Stream stream) override {
    order().announce(memory.get(), key_of(stream));
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const std::scoped_lock lock(mutex_);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0] = bytes_[static_cast<std::size_t>(number_of(device))];
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex /*device*/) override {}
  void resetPeakStats(c10::DeviceIndex device) override {
    const std::scoped_lock lock(mutex_);
    bytes_[static_cast<std::size_t>(number_of(device))].reset_peak();
  }

 private:
  struct Piece {
    void* memory;
    std::int64_t bytes;
    std::size_t device;
    Memory* allocator;
  };
  static void free_piece(void* context) {
    const auto* piece = static_cast<Piece*>(context);
    order().freed(piece->memory);
    piece->allocator->add(*piece, -piece->bytes);
    std::free(piece->memory);
    delete piece;
  }
  void add(const Piece& piece, std::int64_t bytes) {
    const std::scoped_lock lock(mutex_);
    c10::CachingAllocator::Stat& of_device = bytes_[piece.device];
    if (bytes > 0)
      of_device.increase(static_cast<std::size_t>(bytes));
    else
      of_device.decrease(static_cast<std::size_t>(-bytes));
  }

  std::mutex mutex_;
  std::array<c10::CachingAllocator::Stat, devices> bytes_;
};

// By its hooks libtorch knows that there is such a device, and that its autograd has streams to think of.
struct CheckedHooks final : at::HPUHooksInterface {
  explicit CheckedHooks(at::HPUHooksArgs /*unused*/) {}
  void init() const override {}
  [[nodiscard]] bool hasHPU() const override { return true; }
  [[nodiscard]] bool isBuilt() const override { return true; }
  [[nodiscard]] bool isAvailable() const override { return true; }
  [[nodiscard]] bool hasPrimaryContext(c10::DeviceIndex /*device*/) const override { return true; }
};
using at::HPUHooksRegistry;
using at::RegistererHPUHooksRegistry;
C10_REGISTER_CLASS(HPUHooksRegistry, HPUHooks, CheckedHooks)

// The host's kernel, whose own copies are not the program's.
thread_local bool within_kernel = false;

bool is_checked(const at::Tensor& tensor) { return tensor.defined() && tensor.device().type() == checked_device; }

void touch(const at::Tensor& tensor, const StreamKey& stream, bool writes, const std::string& what) {
  if (is_checked(tensor)) order().touch(tensor.storage().data_ptr().get(), stream, writes, what);
}

template <class Visit>
void visit_tensors(const c10::IValue& value, const Visit& visit) {
  if (value.isTensor()) visit(value.toTensor());
  if (value.isTensorList())
    for (const at::Tensor& tensor : value.toTensorVector()) visit(tensor);
  if (value.isOptionalTensorList() || (value.isList() && !value.isTensorList()))
    for (const auto& element : value.toListRef())
      if (element.isTensor()) visit(element.toTensor());
}

// That the fallback resizes what it was given is no news.
class Unheard final : public c10::WarningHandler {
  void process(const c10::Warning& /*warning*/) override {}
};

void run_on_host(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const auto& schema = operation.schema();
  const std::size_t arguments = schema.arguments().size();
  int device = current_device;
  for (std::size_t index = 0; index < arguments; ++index)
    visit_tensors(torch::jit::peek(*stack, index, arguments), [&](const at::Tensor& tensor) {
      if (is_checked(tensor)) device = number_of(tensor.device().index());
    });
  const StreamKey stream = current_on(device);
  for (std::size_t index = 0; index < arguments; ++index) {
    const auto* alias = schema.arguments()[index].alias_info();
    visit_tensors(torch::jit::peek(*stack, index, arguments), [&](const at::Tensor& tensor) {
      touch(tensor, stream, alias != nullptr && alias->isWrite(), schema.name());
    });
  }
  Unheard unheard;
  const c10::WarningUtils::WarningHandlerGuard ignoring(&unheard);
  const bool outer = std::exchange(within_kernel, true);
  at::native::cpu_fallback(operation, stack);
  within_kernel = outer;
  const std::size_t returns = schema.returns().size();
  for (std::size_t index = 0; index < returns; ++index)
    visit_tensors(torch::jit::peek(*stack, index, returns),
                  [&](const at::Tensor& tensor) { touch(tensor, stream, true, schema.name()); });
  // A number for the host: it has waited.
  if (schema.name() == "aten::_local_scalar_dense") order().wait(order().record(stream));
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout> /*layout*/, std::optional<at::Device> device,
                         std::optional<bool> /*pinned*/) {
  const c10::DeviceGuard guard(device.value_or(at::Device(checked_device, 0)));
  return at::detail::empty_strided_generic(size, stride, c10::GetAllocator(checked_device),
                                           c10::DispatchKeySet(c10::DispatchKey::HPU), dtype.value_or(at::kFloat));
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> /*layout*/,
                 std::optional<at::Device> device, std::optional<bool> /*pinned*/,
                 std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(device.value_or(at::Device(checked_device, 0)));
  return at::detail::empty_generic(size, c10::GetAllocator(checked_device), c10::DispatchKeySet(c10::DispatchKey::HPU),
                                   dtype.value_or(at::kFloat), format);
}

// The same memory, seen by the host.
at::Tensor on_host(const at::Tensor& tensor) {
  if (!is_checked(tensor)) return tensor;
  return at::from_blob(const_cast<void*>(tensor.const_data_ptr()), tensor.sizes(), tensor.strides(),
                       tensor.options().device(at::kCPU));
}

// As CUDA's copies: on the current stream of the source, between two waits with that of the destination; the host waits
// where it takes part, unless it is told not to.
at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  if (!within_kernel) {
    const bool leaves = is_checked(from);
    const bool arrives = is_checked(to);
    const StreamKey stream = current_on(leaves ? from.device().index() : to.device().index());
    if (leaves && arrives && from.device() != to.device()) {
      const StreamKey there = current_on(to.device().index());
      order().count_copy();
      order().block(stream, order().record(there));
      touch(from, stream, false, "a copy");
      // The waits with the destination's stream make it as good as one there.
      order().block(there, order().record(stream));
      touch(to, there, true, "a copy");
    } else {
      touch(from, stream, false, "a copy");
      touch(to, stream, true, "a copy");
    }
    if (leaves != arrives && !non_blocking) order().wait(order().record(stream));
  }
  on_host(to).copy_(on_host(from));
  return to;
}

at::Tensor copy_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, HPU, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>()); }

TORCH_LIBRARY_IMPL(aten, HPU, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("view", &at::native::view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_and_resize);
  library.impl("resize_", &at::native::resize_);
}

void register_checked_device() {
  static const bool once = [] {
    static auto* const memory = new Memory;  // NOLINT(cppcoreguidelines-owning-memory)
    c10::SetAllocator(checked_device, memory);
    return true;
  }();
  static_cast<void>(once);
}

C10_REGISTER_GUARD_IMPL(HPU, Guard)

std::vector<std::string> take_races() { return order().take(); }
CheckedCounts checked_counts() { return order().counts(); }

}  // namespace penstock
