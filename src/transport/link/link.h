// One process's link to another: a session, the messages of ranks, and the channels that carry both.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/base/types.h"
#include "penstock/transport/c10d.h"
#include "penstock/wire/frame.h"

#include "transport/link/channel.h"
#include "transport/link/device_path.h"
#include "transport/link/message.h"
#include "transport/link/peer_session.h"

namespace penstock {

struct LinkSettings {
  int process = 0;                // the other one
  LinkTerms terms;                // for what comes from there
  DevicePath* devices = nullptr;  // null where no tensors go from device to device; outlives the link
};

// Has no thread of its own: those of its channels, and a rank's that receives, call what it was given.
class Link {
 public:
  // `wait` is empty, or to be called on the thread that uses the tensors; false if their bytes do not come.
  using OnMessage = std::function<void(const FrameAddress&, std::vector<at::Tensor>, std::function<bool()> wait)>;

  // \param control carries the session, and notices that the other is gone. \param data carries the messages; null:
  // `control` does that too. \param clock outlives the link
  Link(const LinkSettings& settings, OnMessage on_message, SessionObserver observer, std::unique_ptr<Channel> control,
       std::unique_ptr<Channel> data, const Clock& clock);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  Link(Link&&) = delete;
  Link& operator=(Link&&) = delete;
  ~Link();

  // From here on frames come. Once. \throws Error if the system has no room for the channels' threads
  void start();
  [[nodiscard]] PeerSession& session() { return session_; }

  // Thread-safe, and does not wait: what a channel does not take at once is kept until it does. \throws Error
  // (BadInput) for what no message holds: nothing of it has then been sent, and the next one goes as if it had not
  // been.
  void send(const FrameAddress& address, const std::vector<at::Tensor>& tensors);
  // On the thread of a process's only rank, as `Channel::receive_until` and `receive_ready`.
  void receive_until(const std::function<bool()>& done);
  void receive_ready();
  [[nodiscard]] LinkReport report() const;
  // Ends without a word: nothing is called any more. Not thread-safe.
  void close();

 private:
  class Reception;
  bool take(const Incoming& incoming, MessageAssembly& assembly);

  LinkSettings settings_;
  OnMessage on_message_;
  std::atomic<std::int64_t> sent_on_devices_{0};  // bytes
  std::atomic<std::int64_t> received_{0};         // bytes
  std::atomic<std::int64_t> messages_sent_{0};
  std::atomic<std::int64_t> messages_received_{0};
  PeerSession session_;
  std::vector<std::unique_ptr<Reception>> receptions_;  // of the channels
  std::vector<std::unique_ptr<Channel>> channels_;      // the first carries the session, the last the messages
};

}  // namespace penstock
