// Where messages wait, by sender and tag, for the rank that they are for. Every transport ends in it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "penstock/base/types.h"
#include "penstock/transport/transport.h"
#include "penstock/wire/spin.h"

namespace penstock {

using MessageTensors = std::vector<at::Tensor>;

// A tag and its sender, as a key of the inbox.
struct SenderAndTag {
  RankId from;
  Tag tag;

  friend bool operator==(const SenderAndTag&, const SenderAndTag&) = default;
};

struct SenderAndTagHash {
  std::size_t operator()(const SenderAndTag& address) const noexcept {
    auto key = static_cast<std::uint64_t>(address.from.value);
    key = key * 8 + static_cast<std::uint64_t>(address.tag.kind);
    key = (key << 24U) ^ static_cast<std::uint64_t>(address.tag.channel);
    key = (key * 0x9e3779b97f4a7c15ULL) ^ static_cast<std::uint64_t>(address.tag.microbatch);
    return static_cast<std::size_t>(key * 0x9e3779b97f4a7c15ULL >> 16U);
  }
};

// A message and when it came.
struct ArrivedMessage {
  MessageTensors tensors;
  Milliseconds at;  // on the machine's steady clock
  // Where not empty: to be called on the rank's thread before the tensors are used.
  std::function<void()> wait;
};

// The messages that have arrived at one rank and that it has not taken yet.
class Inbox {
 public:
  void put(const SenderAndTag& address, MessageTensors message, std::function<void()> wait = {}) {
    const Milliseconds now = SteadyClock().now();
    {
      const std::scoped_lock lock(mutex_);
      if (aborted_) throw Aborted(reason_, peer_is_lost_);
      messages_[address].push_back({std::move(message), now, std::move(wait)});
      arrivals_.fetch_add(1, std::memory_order_release);
    }
    arrived_.notify_one();
  }

  ArrivedMessage take(const SenderAndTag& address, double spin_us) {
    const auto spin_until = std::chrono::steady_clock::now() +
                            std::chrono::nanoseconds(static_cast<std::int64_t>(spin_us > 0 ? spin_us * 1000 : 0));
    std::unique_lock lock(mutex_);
    for (;;) {
      if (aborted_) throw Aborted(reason_, peer_is_lost_);
      const auto found = messages_.find(address);
      if (found != messages_.end() && !found->second.empty()) return take_first(found->second);
      const std::uint64_t seen = arrivals_.load(std::memory_order_relaxed);
      if (spin_us > 0 && std::chrono::steady_clock::now() < spin_until) {
        lock.unlock();
        spin_while([&] { return arrivals_.load(std::memory_order_acquire) == seen; }, spin_until);
        lock.lock();
      } else {
        arrived_.wait(lock, [&] { return aborted_ || arrivals_.load(std::memory_order_relaxed) != seen; });
      }
    }
  }

  // Whether `take` would return or throw at once.
  [[nodiscard]] bool has_or_aborted(const SenderAndTag& address) {
    const std::scoped_lock lock(mutex_);
    const auto found = messages_.find(address);
    return aborted_ || (found != messages_.end() && !found->second.empty());
  }

  [[nodiscard]] bool has(const SenderAndTag& address) {
    const std::scoped_lock lock(mutex_);
    if (aborted_) throw Aborted(reason_, peer_is_lost_);
    const auto found = messages_.find(address);
    return found != messages_.end() && !found->second.empty();
  }

  void abort(const std::string& reason, bool peer_is_lost = false) {
    {
      const std::scoped_lock lock(mutex_);
      if (aborted_) return;
      aborted_ = true;
      reason_ = reason;
      peer_is_lost_ = peer_is_lost;
      arrivals_.fetch_add(1, std::memory_order_release);
    }
    arrived_.notify_all();
  }

 private:
  // Nearly always the queue holds one message: a vector is the smallest queue.
  static ArrivedMessage take_first(std::vector<ArrivedMessage>& queue) {
    ArrivedMessage first = std::move(queue.front());
    queue.erase(queue.begin());
    return first;
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::unordered_map<SenderAndTag, std::vector<ArrivedMessage>, SenderAndTagHash> messages_;
  std::atomic<std::uint64_t> arrivals_{0};
  bool aborted_ = false;
  std::string reason_;
  bool peer_is_lost_ = false;
};

}  // namespace penstock
