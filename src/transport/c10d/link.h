// One process's link to another: frames over a process group, sent without waiting and received into buffers that
// stand ready.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "penstock/transport/c10d.h"

#include "transport/c10d/direct.h"
#include "transport/c10d/frame.h"
#include "transport/c10d/shared_memory.h"

namespace penstock {

// At least one, so that a wait is never for ever.
inline std::chrono::milliseconds to_chrono(Milliseconds time) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::max(time.count, 1.0)));
}

struct LinkSettings {
  int process = 0;                   // the other one
  LinkTerms terms;                   // for what comes from there
  std::chrono::microseconds spin{};  // of a rank that waits for shared memory, before it sleeps
  DirectChannels* direct = nullptr;  // null where no tensors go from device to device; outlives the link
};

// What a link tells its owner, from its own thread or the rank's that receives. Of the last two one, at most once.
struct LinkObserver {
  // `wait` is empty, or to be called on the thread that uses the tensors; false where their bytes do not come.
  std::function<void(const FrameAddress&, std::vector<at::Tensor>, std::function<bool()> wait)> on_message;
  // The other has given up, for a reason of its own or because it has lost a process.
  std::function<void(const std::string& reason, bool peer_is_lost)> on_abort;
  std::function<void(const std::string& reason)> on_lost;    // it is gone, silent, or says what it must not
  std::function<void(const std::string& reason)> on_failed;  // this process cannot take or send what it must
};

// Messages go through shared memory where there is some, and all else through the process group, which also notices
// that the other is gone. Tensors on devices that reach each other go beside them.
class Link {
 public:
  // `shared` may be null.
  Link(c10d::Backend& group, const LinkSettings& settings, LinkObserver observer,
       std::unique_ptr<SharedMemory> shared = nullptr);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  Link(Link&&) = delete;
  Link& operator=(Link&&) = delete;
  ~Link();

  // Thread-safe, and does not wait: what the network does not take at once is kept until it does. \throws Error
  // (BadInput) for what no message holds: nothing of it has then been sent, and the next one goes as if it had not
  // been.
  void send(const FrameAddress& address, const std::vector<at::Tensor>& tensors);
  // On the thread of a process's only rank: takes messages from shared memory until `done`, which is asked after each.
  // Otherwise the link's thread takes them, which has to be woken first and has to wake the rank. Returns at once where
  // nothing is shared, and when the link ends.
  void receive_until(const std::function<bool()>& done);
  // The same with what is there already.
  void receive_ready();
  // Goes before the messages that are still kept.
  void send_abort(const std::string& reason, bool peer_is_lost);
  void heartbeat();
  // Counts the other as lost where it has said nothing for so long.
  void check_heard(Milliseconds peer_timeout);
  void say_goodbye();
  // Until the other has said goodbye too and everything has been sent, or one of them is lost.
  void wait_for_goodbye(std::chrono::steady_clock::time_point deadline);
  [[nodiscard]] LinkReport report() const;

 private:
  void end();
  struct Buffer;
  struct Outgoing {
    Frame frame;
    Layouts layouts;
    std::vector<at::Tensor> tensors;    // as they go, on the CPU; undefined where they go from device to device
    std::vector<at::Tensor> originals;  // of those that had to be copied
    std::string reason;
    std::uint64_t sent = 0;

    // \pre its first frame has been filled
    [[nodiscard]] bool has_more() const { return frame.with_layouts || sent < frame.message_bytes; }
  };
  struct Arriving {
    FrameAddress address;
    std::vector<at::Tensor> tensors;
    DirectChannel::Expected direct;
  };

  // Messages through shared memory.
  struct Shared;
  bool enqueue_shared(Outgoing outgoing);
  bool share_frame(Outgoing& outgoing);
  void write_shared();
  void read_shared();
  bool take_shared();
  void count_message(Outgoing& outgoing);

  // Whether it will be sent: the link has not ended.
  bool enqueue(Outgoing outgoing, bool in_front);
  static std::size_t fill(FrameWriter& writer, Outgoing& outgoing, std::span<std::byte> into);
  bool send_frame(Outgoing& outgoing);
  void send_direct(const FrameAddress& address, const std::vector<at::Tensor>& tensors);
  void pump();
  void receive();
  // Whether more is to come.
  bool take(const Incoming& incoming, Arriving& arriving);
  [[nodiscard]] Arriving begin_message(const Incoming& incoming);
  void finish_message(const Layouts& layouts, Arriving& arriving);
  void lose(const std::string& reason);
  // The first end of the link, which `notify` reports.
  void end_with(const std::function<void(const std::string&)>& notify, const std::string& reason);
  // Ends the link for the exception that is being handled, whatever it is.
  void end_with_exception();
  // Runs a thread's work.
  void guarded(void (Link::*work)());

  c10d::Backend& group_;
  LinkSettings settings_;
  LinkObserver observer_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  FrameWriter writer_;
  LayoutMemory sent_layouts_;
  std::vector<std::unique_ptr<Buffer>> free_;
  std::deque<std::pair<c10::intrusive_ptr<c10d::Work>, std::unique_ptr<Buffer>>> under_way_;
  std::deque<Outgoing> queue_;
  std::vector<Outgoing> spent_;  // sent; freed by the link's thread, whose memory nobody counts
  bool closing_ = false;         // goodbye has been said: what is under way is waited for
  bool ending_ = false;          // no more will be sent
  bool said_goodbye_ = false;    // the other
  bool lost_ = false;
  bool unsendable_ = false;   // the connection has refused a frame
  std::uint64_t frames_ = 0;  // sent
  std::uint64_t frames_at_heartbeat_ = 0;
  LinkReport report_;

  c10::intrusive_ptr<c10d::Work> waited_for_;  // by the pump

  std::atomic<std::chrono::steady_clock::time_point> heard_{std::chrono::steady_clock::now()};
  std::vector<std::unique_ptr<Buffer>> incoming_;
  std::vector<c10::intrusive_ptr<c10d::Work>> receives_;
  std::thread pump_;
  std::thread receiver_;
  std::unique_ptr<Shared> shared_;  // null where there is none; its threads use what stands above
};

}  // namespace penstock
