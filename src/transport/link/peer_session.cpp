#include "transport/link/peer_session.h"

#include <fmt/format.h>
#include <utility>

#include <c10/util/Exception.h>

#include "penstock/base/error.h"

namespace penstock {

PeerSession::PeerSession(std::vector<Channel*> channels, SessionObserver observer, const Clock& clock)
    : channels_(std::move(channels)), observer_(std::move(observer)), clock_(clock), heard_(clock.now()) {}

bool PeerSession::take(const Incoming& incoming) {
  switch (incoming.kind) {
    case FrameKind::Abort:
    case FrameKind::Lost:
      observer_.on_abort(
          std::string(reinterpret_cast<const char*>(incoming.bytes.data()), incoming.bytes.size()),  // NOLINT
          incoming.kind == FrameKind::Lost);
      return true;
    case FrameKind::Goodbye: {
      const std::scoped_lock lock(mutex_);
      said_goodbye_ = true;
      goodbye_ = clock_.now();
      changed_.notify_all();
      return false;
    }
    case FrameKind::Heartbeat:
    case FrameKind::Message:
    case FrameKind::Continuation:
      break;
  }
  return true;
}

void PeerSession::send(Outgoing outgoing, Place place) {
  static_cast<void>(channels_.front()->send(std::move(outgoing), place));
}

void PeerSession::send_abort(const std::string& reason, bool peer_is_lost) {
  Outgoing outgoing;
  outgoing.frame.kind = peer_is_lost ? FrameKind::Lost : FrameKind::Abort;
  outgoing.reason = reason.substr(0, largest_frame_bytes / 2);
  send(std::move(outgoing), Place::InFront);
}

void PeerSession::heartbeat() {
  const ChannelCounts counts = channels_.front()->counts();
  const bool silent = frames_at_heartbeat_.exchange(counts.frames) == counts.frames;
  if (silent && !counts.waits) send({}, Place::Behind);
}

void PeerSession::check_heard(Milliseconds peer_timeout) {
  if (clock_.now() - heard_.load() > peer_timeout)
    end_with(observer_.on_lost, fmt::format("it has said nothing for {:.1f} s", peer_timeout.count / 1000));
}

void PeerSession::check_left(Milliseconds longest) {
  {
    const std::scoped_lock lock(mutex_);
    if (!said_goodbye_ || lost_ || closed_ || clock_.now() - goodbye_ <= longest) return;
    lost_ = true;
  }
  observer_.on_left();
}

void PeerSession::say_goodbye() {
  Outgoing outgoing;
  outgoing.frame.kind = FrameKind::Goodbye;
  send(std::move(outgoing), Place::Behind);
}

void PeerSession::wait_for_goodbye(std::chrono::steady_clock::time_point deadline) {
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_until(lock, deadline, [this] { return lost_ || said_goodbye_; })) return;
  }
  for (Channel* channel : channels_) channel->wait_until_sent(deadline);
}

void PeerSession::close() {
  const std::scoped_lock lock(mutex_);
  closed_ = true;
}

void PeerSession::end_with(const std::function<void(const std::string&)>& notify, const std::string& reason) {
  {
    const std::scoped_lock lock(mutex_);
    if (lost_ || closed_ || said_goodbye_) return;
    lost_ = true;
  }
  changed_.notify_all();
  for (Channel* channel : channels_) channel->stop();
  notify(reason);
}

// Whoever waits must hear of every end, whatever it is.
void PeerSession::channel_ended(const std::exception_ptr& why) {
  try {
    std::rethrow_exception(why);
  } catch (const ConnectionClosed&) {
    end_with(observer_.on_lost, "its connection is closed");
  } catch (const Error& error) {
    end_with(observer_.on_lost, error.what());
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    end_with(observer_.on_failed, reason.substr(0, reason.find('\n')));
  } catch (const std::exception& error) {
    end_with(observer_.on_failed, error.what());
  } catch (...) {
    end_with(observer_.on_failed, "an unknown exception");
  }
}

}  // namespace penstock
