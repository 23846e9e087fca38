// The threads of the ranks: one for each, alive as long as the crew. Each runs the jobs that the crew is given, in
// their order, and begins the next as soon as it has ended one, whatever the others do.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "penstock/base/types.h"

namespace penstock {

class Crew {
 public:
  using Job = std::function<void(RankId)>;

  // A thread for each of consecutive ranks, from `first` on. `on_failure` is called with the reason, on the thread that
  // failed first, to stop the others. Throws Error (RunFailed) where there is no room for a thread; none is left then.
  Crew(RankId first, int ranks, std::function<void(const std::string&)> on_failure);
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  Crew(Crew&&) = delete;
  Crew& operator=(Crew&&) = delete;
  // Ends when every thread has ended its jobs.
  ~Crew();

  // Gives every thread a job, and returns at once. What the job holds is freed when all have ended it. After a failure
  // no further job is begun.
  void submit(Job job);
  // Waits until all jobs have ended, or `is_done` holds, which is called under the crew's lock. Where a job threw,
  // throws what failed first, not the `Aborted` that others ended with because of it; every later call throws it too.
  void wait(const std::function<bool()>& is_done);
  // The same for all jobs.
  void wait();
  // Changes what an `is_done` looks at; from any thread.
  void change(const std::function<void()>& what);
  // For the last jobs of a crew that has failed: forgets the failure.
  void forget_failure();

 private:
  void end();
  void serve(std::size_t place, RankId rank);
  void do_job(RankId rank, const Job& job);
  void remember(std::exception_ptr failure, bool aborted);

  std::function<void(const std::string&)> on_failure_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;             // those that some thread has not ended
  std::uint64_t first_job_ = 0;      // the number of the first of them
  std::vector<std::uint64_t> next_;  // by thread: the number of the job that it is at
  bool stopping_ = false;
  std::exception_ptr failure_;
  bool failure_is_abort_ = false;
  std::vector<std::thread> threads_;  // last: the threads see everything above
};

}  // namespace penstock
