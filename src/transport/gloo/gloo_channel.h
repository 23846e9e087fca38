// Frames over a process group of c10d.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "transport/link/channel.h"

namespace penstock {

// Sends without waiting, and receives into buffers that stand ready. Two threads: one takes back the buffers of what
// has been sent and sends what had to wait for them, the other receives.
class GlooChannel final : public Channel {
 public:
  // \param group outlives it. \param other the other process's number in it
  GlooChannel(c10d::Backend& group, int other, std::uint64_t run_identity);
  GlooChannel(const GlooChannel&) = delete;
  GlooChannel& operator=(const GlooChannel&) = delete;
  GlooChannel(GlooChannel&&) = delete;
  GlooChannel& operator=(GlooChannel&&) = delete;
  ~GlooChannel() override;

  void start(FrameSink& sink) override;
  bool send(Outgoing outgoing, Place place) override;
  void wait_until_sent(std::chrono::steady_clock::time_point deadline) override;
  void stop() override;
  void close() override;
  [[nodiscard]] ChannelCounts counts() const override;

 private:
  struct Buffer;
  // The process group reads and writes the memory until the last reference to the work has gone, whether it was aborted
  // or not: the work goes first.
  struct Sending {
    std::unique_ptr<Buffer> buffer;
    c10::intrusive_ptr<c10d::Work> work;
  };
  bool send_frame(Outgoing& outgoing);
  void send_queue();
  void receive();
  void guarded(void (GlooChannel::*work)());

  c10d::Backend& group_;
  int other_;
  FrameSink* sink_ = nullptr;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  MessageWriter writer_;
  std::vector<std::unique_ptr<Buffer>> free_;
  std::deque<Sending> under_way_;
  std::deque<Outgoing> queue_;
  std::vector<Outgoing> spent_;  // sent; freed by the sending thread, whose memory nobody counts
  ChannelCounts counts_;
  bool awaited_ = false;                       // what is under way is waited for
  bool stopped_ = false;                       // nothing more will be sent
  bool closed_ = false;                        // nothing more will be received
  bool unsendable_ = false;                    // the connection has refused a frame
  c10::intrusive_ptr<c10d::Work> waited_for_;  // by the sending thread

  std::vector<std::unique_ptr<Buffer>> incoming_;         // the receiving thread's
  std::vector<c10::intrusive_ptr<c10d::Work>> receives_;  // into these, guarded as well; they go before them
  std::thread sender_;
  std::thread receiver_;
};

}  // namespace penstock
