#include "penstock/base/limits.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <filesystem>
#include <fmt/format.h>
#include <iterator>
#include <mutex>
#include <sys/resource.h>
#include <system_error>
#include <thread>
#include <vector>

#include "penstock/base/error.h"

namespace penstock {
namespace {

// One of them is that of the list itself. If it cannot be opened nothing is left, or /proc is not there.
rlim_t open_descriptors() {
  std::error_code failure;
  const std::filesystem::directory_iterator entries("/proc/self/fd", failure);
  if (failure == std::errc::too_many_files_open) return RLIM_INFINITY / 2;
  return failure ? 0 : static_cast<rlim_t>(std::distance(entries, std::filesystem::directory_iterator())) - 1;
}

}  // namespace

void need_descriptors(int more, const std::string& what) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const rlim_t needed = open_descriptors() + static_cast<rlim_t>(more);
  if (needed <= limit.rlim_cur) return;
  rlimit raised = limit;
  raised.rlim_cur = needed;
  if ((limit.rlim_max == RLIM_INFINITY || needed <= limit.rlim_max) && ::setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  throw run_failed(fmt::format("{} with a limit of {} open files", what, limit.rlim_max),
                   fmt::format("at least {}", static_cast<rlim_t>(more) + std::min<rlim_t>(open_descriptors(), 1024)),
                   "raise the limit (ulimit -n), or use fewer processes here");
}

void need_stack(const std::string& what) {
  constexpr rlim_t least_bytes = 1U << 20U;
  rlimit limit{};
  if (::getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= least_bytes)
    return;
  throw run_failed(fmt::format("{} with a stack of {} KiB for each thread", what, limit.rlim_cur / 1024),
                   fmt::format("at least {} KiB", least_bytes / 1024), "raise the limit (ulimit -s)");
}

void need_threads(int more, const std::string& what) {
  std::mutex mutex;
  std::condition_variable over;
  bool all_started = false;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(more));
  std::string reason;
  try {
    for (int thread = 0; thread < more; ++thread)
      threads.emplace_back([&] {
        std::unique_lock lock(mutex);
        over.wait(lock, [&] { return all_started; });
      });
  } catch (const std::system_error& error) {
    reason = error.code().message();
  }
  const std::size_t started = threads.size();
  {
    const std::scoped_lock lock(mutex);
    all_started = true;
  }
  over.notify_all();
  for (std::thread& thread : threads) thread.join();
  if (reason.empty()) return;
  throw run_failed(fmt::format("{} with room for {} more threads: {}", what, started, reason),
                   fmt::format("room for {}", more),
                   "raise the limit (ulimit -u, pids.max of the control group), or use fewer ranks or processes here");
}

}  // namespace penstock
