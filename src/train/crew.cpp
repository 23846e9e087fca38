#include "train/crew.h"

#if defined(__linux__)
#include <sched.h>
#endif
#include <utility>

#include "penstock/transport/transport.h"

namespace penstock {

Crew::Crew(int ranks) : cores_(static_cast<std::size_t>(ranks)) {
  for (std::atomic<int>& core : cores_) core = -1;
  for (std::int32_t rank = 0; rank < ranks; ++rank) threads_.emplace_back([this, rank] { serve(RankId{rank}); });
}

Crew::~Crew() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Crew::run(const std::function<void(RankId)>& work, const std::function<void(const std::string&)>& on_failure) {
  std::unique_lock lock(mutex_);
  work_ = &work;
  on_failure_ = &on_failure;
  running_ = threads_.size();
  ++round_;
  wake_.notify_all();
  finished_.wait(lock, [this] { return running_ == 0; });
  failure_is_abort_ = false;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Crew::serve(RankId rank) {
  std::size_t done = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || round_ != done; });
    if (stopping_) return;
    done = round_;
    const auto& work = *work_;
    const auto& on_failure = *on_failure_;
    lock.unlock();
    leave_a_shared_core(rank);
    try {
      work(rank);
    } catch (const Aborted&) {
      remember(std::current_exception(), true);
    } catch (const std::exception& error) {
      // Remembered before the others are stopped: theirs are only consequences.
      remember(std::current_exception(), false);
      on_failure(error.what());
    }
    lock.lock();
    if (--running_ == 0) finished_.notify_one();
  }
}

// Woken together, ranks are often put on the waker's core, where one waits for the other until the system notices,
// which takes longer than a short step. Where there are cores enough, the later rank moves to one that no rank is on;
// the system may move it on as it likes.
void Crew::leave_a_shared_core([[maybe_unused]] RankId rank) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (cores_.size() < 2 || ::sched_getaffinity(0, sizeof(allowed), &allowed) != 0 ||
      cores_.size() > static_cast<std::size_t>(CPU_COUNT(&allowed)))
    return;
  std::atomic<int>& own = cores_[rank.index()];
  own = ::sched_getcpu();
  cpu_set_t taken;
  CPU_ZERO(&taken);
  for (const std::atomic<int>& core : cores_)
    if (&core != &own && core >= 0) CPU_SET(static_cast<std::size_t>(core), &taken);
  if (own < 0 || !CPU_ISSET(static_cast<std::size_t>(own), &taken)) return;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(static_cast<std::size_t>(core), &allowed) || CPU_ISSET(static_cast<std::size_t>(core), &taken))
      continue;
    cpu_set_t there;
    CPU_ZERO(&there);
    CPU_SET(static_cast<std::size_t>(core), &there);
    if (::sched_setaffinity(0, sizeof(there), &there) == 0) own = core;
    ::sched_setaffinity(0, sizeof(allowed), &allowed);
    return;
  }
#endif
}

void Crew::remember(std::exception_ptr failure, bool aborted) {
  const std::scoped_lock lock(mutex_);
  if (failure_ && (aborted || !failure_is_abort_)) return;
  failure_ = std::move(failure);
  failure_is_abort_ = aborted;
}

}  // namespace penstock
