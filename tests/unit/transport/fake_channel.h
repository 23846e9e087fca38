// A channel without threads: what was sent lies in it until the test moves it, and the test says what comes.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "penstock/base/types.h"

#include "transport/link/channel.h"

namespace penstock {

// Stands still until the test moves it.
class StandingClock final : public Clock {
 public:
  [[nodiscard]] Milliseconds now() const override { return now_; }
  void advance(Milliseconds by) { now_ += by; }

 private:
  Milliseconds now_{1000};
};

// What the test sees of a channel, also once its owner has gone.
struct FakeWire {
  std::deque<Outgoing> waiting;  // in the order in which they go
  FrameSink* sink = nullptr;
  ChannelCounts counts;
  bool stopped = false;
  bool closed = false;
  int waits_until_sent = 0;
  int reads_by_rank = 0;

  // The kinds of what waits.
  [[nodiscard]] std::vector<FrameKind> kinds() const {
    std::vector<FrameKind> kinds;
    kinds.reserve(waiting.size());
    for (const Outgoing& outgoing : waiting) kinds.push_back(outgoing.frame.kind);
    return kinds;
  }
};

class FakeChannel final : public Channel {
 public:
  explicit FakeChannel(FakeWire& wire) : wire_(wire) {}
  FakeChannel(const FakeChannel&) = delete;
  FakeChannel& operator=(const FakeChannel&) = delete;
  FakeChannel(FakeChannel&&) = delete;
  FakeChannel& operator=(FakeChannel&&) = delete;
  ~FakeChannel() override { wire_.closed = true; }

  void start(FrameSink& sink) override { wire_.sink = &sink; }
  bool send(Outgoing outgoing, Place place) override {
    if (wire_.stopped) return false;
    enqueue(wire_.waiting, std::move(outgoing), place);
    return true;
  }
  void wait_until_sent(std::chrono::steady_clock::time_point /*deadline*/) override { ++wire_.waits_until_sent; }
  void stop() override {
    wire_.stopped = true;
    wire_.waiting.clear();
  }
  void close() override { wire_.closed = true; }
  [[nodiscard]] ChannelCounts counts() const override { return wire_.counts; }
  void receive_until(const std::function<bool()>& done) override {
    while (!done()) ++wire_.reads_by_rank;
  }
  void receive_ready() override { ++wire_.reads_by_rank; }

 private:
  FakeWire& wire_;
};

using Frames = std::vector<std::vector<std::byte>>;

// All frames of what waits, which then waits no longer.
inline Frames taken_frames(FakeWire& wire, MessageWriter& writer) {
  Frames frames;
  for (; !wire.waiting.empty(); wire.waiting.pop_front()) {
    Outgoing& outgoing = wire.waiting.front();
    writer.begin(outgoing);
    do {
      auto& frame = frames.emplace_back(largest_frame_bytes);
      frame.resize(writer.write(outgoing, frame));
    } while (outgoing.has_more());
  }
  return frames;
}

}  // namespace penstock
