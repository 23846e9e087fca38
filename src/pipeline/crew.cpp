#include "pipeline/crew.h"

#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/base/thread.h"
#include "penstock/transport/transport.h"

namespace penstock {

Crew::Crew(RankId first, int ranks) {
  threads_.reserve(static_cast<std::size_t>(ranks));
  try {
    for (std::int32_t rank = first.value; rank < first.value + ranks; ++rank)
      threads_.push_back(start_thread([this, rank] { serve(RankId{rank}); }));
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
    try {
      work(rank);
    } catch (const Aborted&) {
      remember(std::current_exception(), true);
    } catch (const std::exception& error) {
      // Remembered before the others are stopped: theirs are only consequences.
      remember(std::current_exception(), false);
      on_failure(error.what());
    } catch (...) {
      const Error error = run_failed(fmt::format("rank {}: something was thrown that is no std::exception", rank.value),
                                     "exceptions of std::exception's kind", "find what the module throws");
      remember(std::make_exception_ptr(error), false);
      on_failure(error.what());
    }
    lock.lock();
    if (--running_ == 0) finished_.notify_one();
  }
}

void Crew::remember(std::exception_ptr failure, bool aborted) {
  const std::scoped_lock lock(mutex_);
  if (failure_ && (aborted || !failure_is_abort_)) return;
  failure_ = std::move(failure);
  failure_is_abort_ = aborted;
}

}  // namespace penstock
