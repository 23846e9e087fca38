/// \file
/// Memory that two processes of one machine share: a ring of frames in each direction. Knows nothing of libtorch.
///
/// The memory has no name: the process that makes it tells its own number and the descriptor's, and the other opens
/// that in /proc. So nothing is left behind however they end, and nobody else than the same user can open it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "penstock/wire/frame.h"

namespace penstock {

/// One direction. What the other process writes into it is not trusted: own positions are kept here.
class SharedRing {
 public:
  static constexpr std::uint32_t slots = 8;  ///< frames that it holds

  /// What lies in the shared memory.
  struct Memory {
    alignas(64) std::atomic<std::uint32_t> written;        ///< frames; a futex of the reader
    alignas(64) std::atomic<std::uint32_t> read;           ///< frames; a futex of the writer
    alignas(64) std::atomic<std::uint32_t> reader_sleeps;  ///< whether it must be woken
    std::atomic<std::uint32_t> writer_sleeps;              ///< the same
    alignas(64) std::array<std::uint32_t, slots> bytes;    ///< of each frame
    alignas(64) std::array<std::array<std::byte, largest_frame_bytes>, slots> frames;  ///< one behind the other
  };

  /// \param memory must outlive it.
  explicit SharedRing(Memory& memory) : memory_(memory) {}

  /// Where the next frame is to be written; empty while the ring is full.
  [[nodiscard]] std::span<std::byte> room();
  /// Makes the frame that was written to `room` known to the reader.
  void publish(std::size_t bytes);
  /// Until the reader has read on, or for a while.
  void wait_for_room(std::chrono::milliseconds longest);

  /// Copies the next frame to `into`, which holds the largest. Its size, or 0 while there is none. \throws Error
  /// (RunFailed) where the positions cannot be.
  [[nodiscard]] std::size_t take(std::span<std::byte> into);
  /// Until a frame is there, or for a while. A second thread may wait while another takes; a frame wakes one of them.
  void wait_for_frame(std::chrono::milliseconds longest);
  /// The same without sleeping. Whether a frame is there.
  [[nodiscard]] bool spin_for_frame(std::chrono::microseconds longest) const;

  /// Ends the waits of this process, of one thread each.
  void wake();

 private:
  Memory& memory_;
  std::atomic<std::uint32_t> position_{0};  // own: frames written, or read; atomic for those who wait
};

/// A ring in each direction. Either process holds one, and the memory goes with the last.
class SharedMemory {
 public:
  /// Null where the system has none to give.
  [[nodiscard]] static std::unique_ptr<SharedMemory> make();
  /// That of another process, by its name; null where it cannot be reached or is something else.
  [[nodiscard]] static std::unique_ptr<SharedMemory> open(const std::string& name);
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  SharedMemory(SharedMemory&&) = delete;
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  /// Of the one that made it: what the other needs.
  [[nodiscard]] const std::string& name() const { return name_; }
  /// The ring that this process writes to.
  [[nodiscard]] SharedRing::Memory& outgoing();
  /// The ring that it reads from.
  [[nodiscard]] SharedRing::Memory& incoming();

 private:
  struct Content;
  SharedMemory(int descriptor, Content* content, bool made) : descriptor_(descriptor), content_(content), made_(made) {}

  int descriptor_;
  Content* content_;
  bool made_;
  std::string name_;
};

/// A text that is equal in two processes which may share memory: they see the same start of one machine, the same
/// processes and the same network. Two containers that stand for two nodes so talk as two nodes do.
[[nodiscard]] std::string machine_name();

}  // namespace penstock
