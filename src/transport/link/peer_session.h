// What two processes tell each other about themselves: that they live, that they give up, that they are done.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/wire/frame.h"

#include "transport/link/channel.h"

namespace penstock {

// What a session tells its owner, from any thread. Of the last three one, at most once.
struct SessionObserver {
  // The other has given up, for a reason of its own or because it has lost a process.
  std::function<void(const std::string& reason, bool peer_is_lost)> on_abort;
  std::function<void(const std::string& reason)> on_lost;    // it is gone, silent, or says what it must not
  std::function<void(const std::string& reason)> on_failed;  // this process cannot take or send what it must
  std::function<void()> on_left;                             // it has ended its part, and this process goes on
};

// The session with one other process. Has no thread of its own. Thread-safe.
class PeerSession {
 public:
  // \param channels all that lead to the other, of which the first carries the session's own frames. They and the
  // clock outlive it.
  PeerSession(std::vector<Channel*> channels, SessionObserver observer, const Clock& clock);

  // Something has come from the other, on any channel.
  void heard() { heard_.store(clock_.now(), std::memory_order_relaxed); }
  // A frame of no message. Returns whether more are to come.
  bool take(const Incoming& incoming);
  // A channel has ended by itself. The other is lost if it is closed or has brought what is refused (`Error`); all else
  // is this process's own failure.
  void channel_ended(const std::exception_ptr& why);

  // Goes before the messages that still wait.
  void send_abort(const std::string& reason, bool peer_is_lost);
  // To be called from time to time: says that this process lives, unless other frames have said so since the last time.
  void heartbeat();
  // Counts the other as lost if it has said nothing for so long.
  void check_heard(Milliseconds peer_timeout);
  // Gives up where the other has said goodbye so long ago and this process is not done: it waits for what never comes.
  void check_left(Milliseconds longest);

  void say_goodbye();
  // Until the other has said goodbye too and everything has been sent, or one of them is lost.
  void wait_for_goodbye(std::chrono::steady_clock::time_point deadline);
  // From now on nothing is an end that is reported.
  void close();

 private:
  void send(Outgoing outgoing, Place place);
  // The first end of the session, which `notify` reports.
  void end_with(const std::function<void(const std::string&)>& notify, const std::string& reason);

  std::vector<Channel*> channels_;
  SessionObserver observer_;
  const Clock& clock_;
  std::atomic<Milliseconds> heard_;
  std::atomic<std::uint64_t> frames_at_heartbeat_{0};

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool closed_ = false;
  bool said_goodbye_ = false;  // the other
  Milliseconds goodbye_;       // when it said so
  bool lost_ = false;
};

}  // namespace penstock
