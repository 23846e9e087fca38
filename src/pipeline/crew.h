// The threads of the ranks: one for each, alive as long as the crew, each runs the work that the crew is given.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "penstock/base/ids.h"

namespace penstock {

class Crew {
 public:
  // Of consecutive ranks, from `first` on. Throws Error (RunFailed) where there is no room for a thread; none is left
  // then.
  Crew(RankId first, int ranks);
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  Crew(Crew&&) = delete;
  Crew& operator=(Crew&&) = delete;
  ~Crew();

  // Runs `work` on every rank's thread and returns when all have ended. Where some threw, throws what failed first, not
  // the `Aborted` that the others ended with because of it. `on_failure` runs at once on the thread that failed, to
  // stop the others.
  void run(const std::function<void(RankId)>& work, const std::function<void(const std::string&)>& on_failure);

 private:
  void end();
  void serve(RankId rank);
  void remember(std::exception_ptr failure, bool aborted);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  const std::function<void(RankId)>* work_ = nullptr;
  const std::function<void(const std::string&)>* on_failure_ = nullptr;
  std::size_t round_ = 0;
  std::size_t running_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
  bool failure_is_abort_ = false;
  std::vector<std::thread> threads_;  // last: the threads see everything above
};

}  // namespace penstock
