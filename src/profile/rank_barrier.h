// Where the ranks that measure together meet.
#pragma once

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace penstock {

// Lets all ranks go on together, and stop together when one fails.
class RankBarrier {
 public:
  explicit RankBarrier(int ranks) : ranks_(ranks), barrier_(ranks) {}

  void wait() {
    barrier_.arrive_and_wait();
    if (failed_) throw Stopped{};
  }
  // The same as a rank of a run waits for a message: it looks for it for so long, and then sleeps. \param meeting how
  // often this rank has met the others before.
  void meet(int meeting, std::chrono::microseconds spin) {
    const int all = (meeting + 1) * ranks_;
    ++arrived_;
    arrived_.notify_all();
    const auto sleeps = std::chrono::steady_clock::now() + spin;
    while (arrived_ < all && !failed_ && std::chrono::steady_clock::now() < sleeps) std::this_thread::yield();
    for (int seen = arrived_; seen < all && !failed_; seen = arrived_) arrived_.wait(seen);
    if (failed_) throw Stopped{};
  }
  // Called by the first rank alone; what it says holds for all at the next `wait`.
  void set_cycles(int cycles) { cycles_ = cycles; }
  [[nodiscard]] int cycles() const { return cycles_; }
  void set_entry(std::size_t entry) { entry_ = entry; }
  [[nodiscard]] std::size_t entry() const { return entry_; }
  void set_goes_on(bool goes_on) { goes_on_ = goes_on; }
  [[nodiscard]] bool goes_on() const { return goes_on_; }

  // Runs a rank's part. Where it throws, the others stop at their next rank_barrier.
  void run(const std::function<void()>& part) noexcept {
    try {
      part();
    } catch (const Stopped&) {
      barrier_.arrive_and_drop();
    } catch (...) {
      {
        const std::scoped_lock lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
      failed_ = true;
      ++arrived_;
      arrived_.notify_all();
      barrier_.arrive_and_drop();
    }
  }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  struct Stopped {};
  int ranks_;
  std::barrier<> barrier_;
  std::atomic<bool> failed_{false};
  std::atomic<int> arrived_{0};
  std::atomic<int> cycles_{0};
  std::atomic<std::size_t> entry_{0};
  std::atomic<bool> goes_on_{true};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace penstock
