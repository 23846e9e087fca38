// Which processes get shared memory, in one process that plays all of them.
#include "transport/shared_memory/share_memory.h"

#include <barrier>
#include <gtest/gtest.h>
#include <map>
#include <mutex>
#include <thread>

namespace penstock::share_memory_test {
namespace {

// Everybody's texts, by name and process; all must come before one goes on.
class Exchanges {
 public:
  explicit Exchanges(int processes) : processes_(processes), all_said_(processes) {}
  Exchange of(int process) {
    return [this, process](const std::string& name, const std::string& text) {
      {
        const std::scoped_lock lock(mutex_);
        auto& texts = said_[name];
        texts.resize(static_cast<std::size_t>(processes_));
        texts[static_cast<std::size_t>(process)] = text;
      }
      all_said_.arrive_and_wait();
      const std::scoped_lock lock(mutex_);
      return said_[name];
    };
  }

 private:
  int processes_;
  std::barrier<> all_said_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::string>> said_;
};

using Shared = std::vector<std::unique_ptr<SharedMemory>>;

// What each process gets. \param refuses does not want any.
std::vector<Shared> share(int processes, int refuses = -1) {
  Exchanges exchanges(processes);
  std::vector<Shared> of_all(static_cast<std::size_t>(processes));
  std::vector<std::thread> threads;
  threads.reserve(of_all.size());
  for (int process = 0; process < processes; ++process)
    threads.emplace_back([&, process] {
      ProcessSettings settings;
      settings.process = process;
      settings.processes = processes;
      settings.shared_memory = process != refuses;
      of_all[static_cast<std::size_t>(process)] = share_memory(settings, exchanges.of(process));
    });
  for (std::thread& thread : threads) thread.join();
  return of_all;
}

TEST(ShareMemory, EveryTwoProcessesOfAMachineHaveOneThatIsTheirs) {
  const std::vector<Shared> all = share(3);
  for (std::size_t one = 0; one < 3; ++one) {
    EXPECT_FALSE(all[one].at(one));
    for (std::size_t other = 0; other < 3; ++other) {
      if (one == other) continue;
      ASSERT_TRUE(all[one].at(other)) << one << " and " << other;
      SharedRing out(all[one][other]->outgoing());
      SharedRing in(all[other][one]->incoming());
      ASSERT_FALSE(out.room().empty());
      out.room().front() = std::byte(10 * one + other);
      out.publish(1);
      std::vector<std::byte> frame(largest_frame_bytes);
      EXPECT_EQ(in.take(frame), 1U);
      EXPECT_EQ(frame.front(), std::byte(10 * one + other));
    }
  }
}

TEST(ShareMemory, OneThatWantsNoneGetsNone) {
  const std::vector<Shared> all = share(3, /*refuses=*/1);
  EXPECT_TRUE(all[0].at(2) && all[2].at(0));
  EXPECT_FALSE(all[0].at(1) || all[1].at(0) || all[1].at(2) || all[2].at(1));
}

}  // namespace
}  // namespace penstock::share_memory_test
