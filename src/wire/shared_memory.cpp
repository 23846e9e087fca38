#include "penstock/wire/shared_memory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <linux/futex.h>
#include <random>
#include <sstream>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/wire/spin.h"

namespace penstock {
namespace {

// Across processes, so not the private kind.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::chrono::milliseconds longest) {
  const timespec limit{longest.count() / 1000, longest.count() % 1000 * 1'000'000};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &limit, nullptr, 0);
}

void futex_wake(std::atomic<std::uint32_t>& word) { ::syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

void sleep_until_changed(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::atomic<std::uint32_t>& sleeps,
                         std::chrono::milliseconds longest) {
  // Said before the last look, so that whoever changes the word after it sees it.
  sleeps.fetch_add(1);
  if (word.load() == seen) futex_wait(word, seen, longest);
  sleeps.fetch_sub(1);
}

// "net:[4026531840]"; empty where the system does not say.
std::string namespace_name(const std::string& kind) {
  std::array<char, 64> name{};
  const ssize_t length = ::readlink(("/proc/self/ns/" + kind).c_str(), name.data(), name.size());
  return {name.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))};
}

}  // namespace

std::span<std::byte> SharedRing::room() {
  // Also where the other says what cannot be.
  if (position_ - memory_.read.load(std::memory_order_acquire) >= slots) return {};
  return memory_.frames[position_ % slots];
}

void SharedRing::publish(std::size_t bytes) {
  memory_.bytes[position_ % slots] = static_cast<std::uint32_t>(bytes);
  memory_.written.store(++position_);
  if (memory_.reader_sleeps.load() != 0) futex_wake(memory_.written);
}

void SharedRing::wait_for_room(std::chrono::milliseconds longest) {
  const std::uint32_t read = memory_.read.load();
  if (position_ - read >= slots) sleep_until_changed(memory_.read, read, memory_.writer_sleeps, longest);
}

std::size_t SharedRing::take(std::span<std::byte> into) {
  const std::uint32_t ready = memory_.written.load(std::memory_order_acquire) - position_;
  if (ready == 0) return 0;
  const std::size_t bytes = memory_.bytes[position_ % slots];
  if (ready > slots || bytes > largest_frame_bytes)
    throw run_failed(fmt::format("{} frames, of {} bytes, in shared memory", ready, bytes),
                     fmt::format("at most {} of {}", slots, largest_frame_bytes),
                     "start every process of the run with the same penstock");
  std::memcpy(into.data(), memory_.frames[position_ % slots].data(), bytes);
  memory_.read.store(++position_);
  if (memory_.writer_sleeps.load() != 0) futex_wake(memory_.read);
  return bytes;
}

void SharedRing::wait_for_frame(std::chrono::milliseconds longest) {
  const std::uint32_t position = position_;
  if (memory_.written.load() == position)
    sleep_until_changed(memory_.written, position, memory_.reader_sleeps, longest);
}

bool SharedRing::spin_for_frame(std::chrono::microseconds longest) const {
  return spin_while([this] { return memory_.written.load(std::memory_order_acquire) == position_; },
                    std::chrono::steady_clock::now() + longest);
}

void SharedRing::wake() {
  futex_wake(memory_.written);
  futex_wake(memory_.read);
}

struct SharedMemory::Content {
  std::uint64_t identity = 0;
  SharedRing::Memory maker_writes;
  SharedRing::Memory other_writes;
};

std::unique_ptr<SharedMemory> SharedMemory::make() {
  const int descriptor = ::memfd_create("penstock", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptor < 0) return nullptr;
  void* mapped = MAP_FAILED;
  // Its size is sealed, so that nobody is killed for reading behind the end of what another has cut short.
  if (::ftruncate(descriptor, sizeof(Content)) == 0 &&
      ::fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    mapped = ::mmap(nullptr, sizeof(Content), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (mapped == MAP_FAILED) {
    ::close(descriptor);
    return nullptr;
  }
  auto* content = static_cast<Content*>(mapped);
  std::random_device device;
  content->identity = (std::uint64_t{device()} << 32U) | device();
  std::unique_ptr<SharedMemory> memory(new SharedMemory(descriptor, content, /*made=*/true));
  memory->name_ = fmt::format("{} {} {}", ::getpid(), descriptor, content->identity);
  return memory;
}

std::unique_ptr<SharedMemory> SharedMemory::open(const std::string& name) {
  std::istringstream words(name);
  int process = 0;
  int number = 0;
  std::uint64_t identity = 0;
  if (!(words >> process >> number >> identity)) return nullptr;
  const int descriptor =
      ::open(fmt::format("/proc/{}/fd/{}", process, number).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return nullptr;
  struct stat status{};
  void* mapped = MAP_FAILED;
  if ((::fcntl(descriptor, F_GET_SEALS) & F_SEAL_SHRINK) == F_SEAL_SHRINK && ::fstat(descriptor, &status) == 0 &&
      status.st_size == static_cast<off_t>(sizeof(Content)))
    mapped = ::mmap(nullptr, sizeof(Content), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (mapped == MAP_FAILED) {
    ::close(descriptor);
    return nullptr;
  }
  std::unique_ptr<SharedMemory> memory(new SharedMemory(descriptor, static_cast<Content*>(mapped), /*made=*/false));
  // Another process may have had that number in the meantime, or have it in another container.
  return memory->content_->identity == identity ? std::move(memory) : nullptr;
}

SharedMemory::~SharedMemory() {
  ::munmap(content_, sizeof(Content));
  ::close(descriptor_);
}

SharedRing::Memory& SharedMemory::outgoing() { return made_ ? content_->maker_writes : content_->other_writes; }
SharedRing::Memory& SharedMemory::incoming() { return made_ ? content_->other_writes : content_->maker_writes; }

std::string machine_name() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  const std::string network = namespace_name("net");
  const std::string processes = namespace_name("pid");
  if (boot.empty() || network.empty() || processes.empty()) return {};
  return fmt::format("{} {} {}", boot, network, processes);
}

}  // namespace penstock
