#include "pipeline/crew.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/thread.h"
#include "penstock/transport/transport.h"

namespace penstock {

Crew::Crew(RankId first, int ranks, std::function<void(const std::string&)> on_failure)
    : on_failure_(std::move(on_failure)), next_(static_cast<std::size_t>(ranks)) {
  threads_.reserve(next_.size());
  try {
    for (std::size_t place = 0; place < next_.size(); ++place) {
      const RankId rank{first.value + static_cast<std::int32_t>(place)};
      threads_.push_back(start_thread([this, place, rank] { serve(place, rank); }));
    }
  } catch (...) {
    end();
    throw;
  }
}

Crew::~Crew() { end(); }

void Crew::end() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Crew::submit(Job job) {
  {
    const std::scoped_lock lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_all();
}

void Crew::wait(const std::function<bool()>& is_done) {
  std::unique_lock lock(mutex_);
  bool done = false;
  // All have ended what they were at before the failure is anybody's: jobs may refer to what its catcher frees.
  changed_.wait(lock, [&] { return jobs_.empty() || (done = is_done()); });
  if (failure_ && !done) std::rethrow_exception(failure_);
}

void Crew::wait() {
  wait([] { return false; });
}

void Crew::change(const std::function<void()>& what) {
  {
    const std::scoped_lock lock(mutex_);
    what();
  }
  changed_.notify_all();
}

void Crew::forget_failure() {
  const std::scoped_lock lock(mutex_);
  failure_ = nullptr;
  failure_is_abort_ = false;
}

void Crew::serve(std::size_t place, RankId rank) {
  std::uint64_t& next = next_[place];
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || next < first_job_ + jobs_.size(); });
    if (next == first_job_ + jobs_.size()) return;
    // A deque's elements stay where they are while others come and go at its ends.
    const Job& job = jobs_[next - first_job_];
    if (!failure_) {
      lock.unlock();
      do_job(rank, job);
      lock.lock();
    }
    ++next;
    Job ended;
    if (std::ranges::min(next_) > first_job_) {
      ended = std::move(jobs_.front());
      jobs_.pop_front();
      ++first_job_;
    }
    if (jobs_.empty()) changed_.notify_all();
    if (!ended) continue;
    lock.unlock();
    ended = nullptr;
    lock.lock();
  }
}

void Crew::do_job(RankId rank, const Job& job) {
  try {
    job(rank);
  } catch (const Aborted&) {
    remember(std::current_exception(), true);
  } catch (const std::exception& error) {
    // Remembered before the others are stopped: theirs are only consequences.
    remember(std::current_exception(), false);
    on_failure_(error.what());
  } catch (...) {
    const Error error = run_failed(fmt::format("rank {}: something was thrown that is no std::exception", rank.value),
                                   "exceptions of std::exception's kind", "find what the module throws");
    remember(std::make_exception_ptr(error), false);
    on_failure_(error.what());
  }
}

void Crew::remember(std::exception_ptr failure, bool aborted) {
  const std::scoped_lock lock(mutex_);
  if (failure_ && (aborted || !failure_is_abort_)) return;
  failure_ = std::move(failure);
  failure_is_abort_ = aborted;
}

}  // namespace penstock
