// Frames through memory that two processes share.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "penstock/wire/shared_memory.h"

#include "transport/link/channel.h"

namespace penstock {

// Whoever sends writes into the ring itself, and a thread what had to wait for room. Another thread reads the ring, but
// leaves it to the process's only rank while that waits for a message. It does not notice that the other is gone.
class SharedMemoryChannel final : public Channel {
 public:
  // \param spin how long a rank that waits looks at the ring before it sleeps.
  SharedMemoryChannel(std::unique_ptr<SharedMemory> memory, std::uint64_t run_identity, std::chrono::microseconds spin);
  SharedMemoryChannel(const SharedMemoryChannel&) = delete;
  SharedMemoryChannel& operator=(const SharedMemoryChannel&) = delete;
  SharedMemoryChannel(SharedMemoryChannel&&) = delete;
  SharedMemoryChannel& operator=(SharedMemoryChannel&&) = delete;
  ~SharedMemoryChannel() override;

  void start(FrameSink& sink) override;
  bool send(Outgoing outgoing, Place place) override;
  void wait_until_sent(std::chrono::steady_clock::time_point deadline) override;
  void stop() override;
  void close() override;
  [[nodiscard]] ChannelCounts counts() const override;
  void receive_until(const std::function<bool()>& done) override;
  void receive_ready() override;

 private:
  bool write_frame(Outgoing& outgoing);
  void write_queue();
  void read();
  bool take_frame();
  void guarded(void (SharedMemoryChannel::*work)());

  std::unique_ptr<SharedMemory> memory_;
  std::chrono::microseconds spin_;
  FrameSink* sink_ = nullptr;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  MessageWriter writer_;
  SharedRing out_;
  std::deque<Outgoing> queue_;
  std::vector<Outgoing> spent_;  // written; freed by the writing thread, whose memory nobody counts
  ChannelCounts counts_;
  bool stopped_ = false;

  std::mutex reading_;  // guards what follows, but for waits
  SharedRing in_;
  std::vector<std::byte> frame_;  // a copy of one's own: what is checked must not change afterwards

  std::atomic<std::uint64_t> waits_of_rank_{0};
  std::atomic<bool> ended_{false};    // no more frames are to come
  std::atomic<bool> closing_{false};  // threads are to end
  std::thread write_thread_;
  std::thread read_thread_;
};

}  // namespace penstock
