// One way of frames to another process and back. It knows neither messages nor sessions: it keeps the order, does not
// wait to send, and says what came and why it ended.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <span>

#include "penstock/base/types.h"

#include "transport/link/message.h"

namespace penstock {

// Why a channel ends whose other end is closed.
struct ConnectionClosed : std::exception {};

// Takes what comes out of a channel: on the channel's own threads, or on the rank's that reads it; one call at a time.
class FrameSink {
 public:
  FrameSink() = default;
  FrameSink(const FrameSink&) = delete;
  FrameSink& operator=(const FrameSink&) = delete;
  FrameSink(FrameSink&&) = delete;
  FrameSink& operator=(FrameSink&&) = delete;
  virtual ~FrameSink() = default;

  // \param bytes begin with the next frame and may go on behind it. Returns whether more are to come. What it throws
  // ends the channel.
  virtual bool take(std::span<const std::byte> bytes) = 0;
  // The channel has ended by itself: one of its threads, or a call of the sink, has failed in this way. Perhaps twice,
  // and from two threads.
  virtual void ended(const std::exception_ptr& why) = 0;
};

struct ChannelCounts {
  std::uint64_t frames = 0;  // sent
  Bytes bytes;               // of these
  bool waits = false;        // whether some wait for their turn
};

// All but `start` and `close` are thread-safe.
class Channel {
 public:
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  Channel(Channel&&) = delete;
  Channel& operator=(Channel&&) = delete;
  virtual ~Channel() = default;  // closes

  // From here on frames come. Once; `sink` outlives the channel. \throws Error if the system has no room for a thread
  virtual void start(FrameSink& sink) = 0;
  // Sends what goes at once, and keeps the rest until it does. False if nothing of it will be sent, since the channel
  // has stopped or its other end is closed.
  virtual bool send(Outgoing outgoing, Place place) = 0;
  // Until everything has been sent, the channel has stopped or the time has come.
  virtual void wait_until_sent(std::chrono::steady_clock::time_point deadline) = 0;
  // Sends nothing more and drops what waits. What comes is still taken.
  virtual void stop() = 0;
  // Stops, and ends its threads: the sink is not called any more.
  virtual void close() = 0;
  [[nodiscard]] virtual ChannelCounts counts() const = 0;

  // On the thread of a process's only rank: takes frames until `done`, which is asked after each. Otherwise a thread of
  // the channel takes them, which has to be woken first and has to wake the rank. Returns at once if the channel leaves
  // no frames to ranks, and when it ends.
  virtual void receive_until(const std::function<bool()>& /*done*/) {}
  // The same with what is there already.
  virtual void receive_ready() {}
};

}  // namespace penstock
