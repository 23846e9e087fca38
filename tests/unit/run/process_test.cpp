// Which part of a run is this process's, and how much of the machine it may take.
#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <thread>

#include "penstock/run/train.h"

namespace penstock::process_test {
namespace {

/// What a starting program has set, for as long as this lives.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& variables) : variables_(variables) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread runs here.
    for (const auto& [name, value] : variables_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  Environment(Environment&&) = delete;
  Environment& operator=(Environment&&) = delete;
  ~Environment() {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): as above
    for (const auto& [name, value] : variables_) ::unsetenv(name.c_str());
  }

 private:
  std::map<std::string, std::string> variables_;
};

int ranks_here(const std::string& processes, const std::string& of_machine, int ranks) {
  std::map<std::string, std::string> variables{
      {"RANK", "0"}, {"WORLD_SIZE", processes}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29500"}};
  if (!of_machine.empty()) variables["LOCAL_WORLD_SIZE"] = of_machine;
  const Environment environment(variables);
  ProcessSettings settings = process_of_environment().value();
  settings.ranks = ranks;
  return ranks_of_machine(settings);
}

TEST(RanksOfAMachine, AreThoseOfTheProcessesOnIt) {
  EXPECT_EQ(ranks_here("4", "2", 8), 4);
  EXPECT_EQ(ranks_here("4", "4", 8), 8);
  EXPECT_EQ(ranks_here("4", "", 8), 8) << "nobody said: all may be here";
  EXPECT_EQ(ranks_here("2", "1", 5), 3) << "the most of a process, so that all machines take as many threads";
  EXPECT_EQ(ranks_here("3", "2", 4), 4);
}

TEST(ThreadsOfARank, AreTheCoresOfTheMachineDividedByItsRanks) {
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  Layout layout;
  layout.threads_per_rank = 0;
  EXPECT_EQ(threads_of(layout, 1), cores);
  EXPECT_EQ(threads_of(layout, 2 * cores), 1);
  layout.threads_per_rank = 3;
  EXPECT_EQ(threads_of(layout, 1), 3);
}

}  // namespace
}  // namespace penstock::process_test
