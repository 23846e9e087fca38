// What is left when workers, their children or the launcher itself are killed: nothing.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "penstock/launch/launch.h"

#include "shell_workers.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A worker and a child of its own, which both write their numbers into `folder`.
std::string with_child(const std::filesystem::path& folder, const std::string& then) {
  return fmt::format("(exec sh -c ': >{0}/$$; exec sleep 1000') & : >{0}/$$; {1}", folder.string(), then);
}

bool none_runs(const std::filesystem::path& folder) {
  const auto ids = ids_in(folder);
  return std::none_of(ids.begin(), ids.end(), runs);
}

// Sends this process a signal once all of `count` processes have written their numbers.
std::jthread signal_when_all_run(const std::filesystem::path& folder, std::size_t count, int signal) {
  return std::jthread([=] {
    const bool all = comes_true([&] { return ids_in(folder).size() >= count; });
    EXPECT_TRUE(all);
    ::kill(::getpid(), signal);
    // `timeout` and others signal a process and then its group.
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ::kill(::getpid(), signal);
  });
}

// Which signals a worker begins with blocked; a shell would unblock them.
LaunchSettings tells_its_mask() {
  LaunchSettings settings;
  settings.command = {
      "python3", "-c",
      "import sys; sys.stderr.write([line for line in open('/proc/self/status') if 'SigBlk' in line][0])"};
  return settings;
}

// The launcher of a signal test is one of several threads, of which none may take the signals.
class Signals : public testing::Test {
 protected:
  Signals() {
    sigemptyset(&held_);
    sigaddset(&held_, SIGINT);
    sigaddset(&held_, SIGTERM);
    sigaddset(&held_, SIGHUP);
    ::pthread_sigmask(SIG_BLOCK, &held_, &before_);
  }
  ~Signals() override {
    const timespec at_once = {};
    while (::sigtimedwait(&held_, nullptr, &at_once) > 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t held_ = {};
  sigset_t before_ = {};
};

TEST(Killing, AKilledWorkerEndsAllAndTheRunIsStartedAgain) {
  const auto seed = static_cast<unsigned>(testing::UnitTest::GetInstance()->random_seed()) + 1;
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 8; ++round) {
    const auto folder = fresh_folder();
    auto settings = shell_workers(5, "");
    settings.restarts = 1;
    std::vector<int> ids(5);
    std::jthread killer;
    LaunchHooks hooks;
    const auto victim = random() % 5;
    const std::chrono::microseconds moment(random() % 30'000);
    hooks.started = [&](int rank, int id) {
      ids[static_cast<std::size_t>(rank)] = id;
      // The kill may come before, while or after the last workers are started.
      if (static_cast<std::size_t>(rank) == victim && !killer.joinable())
        killer = std::jthread([=] {
          std::this_thread::sleep_for(moment);
          ::kill(id, SIGKILL);
        });
    };
    hooks.command = [&](const LaunchAttempt& attempt) {
      return std::vector<std::string>{"sh", "-c", attempt.number == 0 ? with_child(folder, "sleep 1000") : "exit 0"};
    };
    const auto told = launch_and_listen(settings, hooks);
    EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished) << told.result.message;
    EXPECT_EQ(told.result.attempt.number, 1);
    ASSERT_FALSE(told.lines.empty());
    EXPECT_THAT(told.lines.front(), HasSubstr(fmt::format("rank {} ended by signal 9 (killed)", victim)));
    EXPECT_FALSE(has_children());
    EXPECT_TRUE(comes_true([&] { return none_runs(folder); }));
  }
}

TEST(Killing, AWorkerThatIsStoppedWhenAllOthersAreDoneIsEndedAndTriedAgain) {
  LaunchSettings settings = shell_workers(3, "[ $RANK$PENSTOCK_ATTEMPT != 10 ] || kill -STOP $$");
  settings.finish_grace = {200};
  settings.restarts = 1;
  settings.first_back_off = {1};
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished) << told.result.message;
  EXPECT_EQ(told.result.attempt.number, 1);
  EXPECT_FALSE(has_children());
}

TEST(Killing, AStoppedWorkerIsEndedToo) {
  const auto folder = fresh_folder();
  auto settings = shell_workers(2, "");
  // Rank 1 stops for good; rank 0 fails of that, as a rank does that waits too long for another.
  settings.command.back() = fmt::format(
      "trap '' TERM; : >{0}/$$; test $RANK = 0 || {{ kill -STOP $$; exec sleep 1000; }}; while test $(ls {0} | wc -l) "
      "-lt 2; do sleep 0.01; done; exit 1",
      folder.string());
  settings.stop_grace = {20};
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.failure->rank, 0);
  EXPECT_THAT(told.result.killed, ElementsAre(1));
  EXPECT_TRUE(none_runs(folder));
}

TEST(Killing, AWorkerThatIsStoppedBeforeAllHaveMetIsEnded) {
  auto settings = shell_workers(3, "test $RANK = 1 && kill -STOP $$; exec sleep 1000");
  settings.standstill = Milliseconds{200};
  settings.stop_grace = {600'000};
  const auto told = launch_and_listen(settings);
  ASSERT_TRUE(told.result.failure);
  EXPECT_EQ(told.result.failure->rank, 1);
  EXPECT_THAT(told.result.message, HasSubstr("stopped for 200 ms"));
}

TEST(Killing, AWorkerThatIsStoppedAfterAllHaveMetIsLeftToTheOthers) {
  const auto folder = fresh_folder();
  // Rank 1 is stopped for longer than it might have been before, and goes on when rank 0 lets it.
  auto settings = shell_workers(
      2,
      fmt::format("eval \"exec $PENSTOCK_JOINED_DESCRIPTOR>&-\"; echo $$ >{0}/$RANK; if test $RANK = 1; then kill "
                  "-STOP $$; else until grep -q 'State:.T' /proc/$(cat {0}/1)/status; do sleep 0.01; done; sleep 0.5; "
                  "kill -CONT $(cat {0}/1); fi",
                  folder.string()));
  settings.standstill = Milliseconds{100};
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished) << told.result.message;
}

TEST(Killing, AKilledLauncherLeavesNobody) {
  const auto folder = fresh_folder();
  const pid_t launcher = ::fork();
  if (launcher == 0) {
    static_cast<void>(launch(shell_workers(4, with_child(folder, "sleep 1000"))));
    ::_exit(0);
  }
  ASSERT_TRUE(comes_true([&] { return ids_in(folder).size() == 8; }));
  ::kill(launcher, SIGKILL);
  int status = 0;
  ::waitpid(launcher, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_TRUE(comes_true([&] { return none_runs(folder); }));
}

TEST(Killing, ALauncherKilledWhileItStartsLeavesNobody) {
  const auto seed = static_cast<unsigned>(testing::UnitTest::GetInstance()->random_seed()) + 1;
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 8; ++round) {
    const auto folder = fresh_folder();
    const pid_t launcher = ::fork();
    if (launcher == 0) {
      static_cast<void>(launch(shell_workers(12, with_child(folder, "sleep 1000"))));
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    ::kill(launcher, SIGKILL);
    ::waitpid(launcher, nullptr, 0);
    EXPECT_TRUE(comes_true([&] { return count_running_with(folder.string()) == 0 && none_runs(folder); }));
  }
}

TEST(Killing, WhatAWorkerLeftBehindEndsWithIt) {
  const auto folder = fresh_folder();
  const auto told = launch_and_listen(shell_workers(
      2, with_child(folder, fmt::format("while test $(ls {} | wc -l) -lt 4; do sleep 0.01; done", folder.string()))));
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished);
  EXPECT_TRUE(comes_true([&] { return none_runs(folder); }));
}

TEST_F(Signals, ArePassedOnAndWorkersMayTakeTheirTimeToSave) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    const auto folder = fresh_folder();
    auto settings =
        shell_workers(3, fmt::format("trap 'sleep 0.1; echo warn saved by $RANK >&2; exit {1}' TERM INT HUP; : "
                                     ">{0}/$$; while :; do sleep 0.01; done",
                                     folder.string(), 128 + signal));
    settings.restarts = 5;
    const auto sender = signal_when_all_run(folder, 3, signal);
    const auto told = launch_and_listen(settings);
    EXPECT_EQ(told.result.outcome, LaunchOutcome::Stopped);
    EXPECT_EQ(exit_code(told.result), 128 + signal);
    EXPECT_THAT(told.result.killed, testing::IsEmpty());
    for (int rank = 0; rank < 3; ++rank)
      EXPECT_THAT(told.lines, testing::Contains(HasSubstr(fmt::format("warn saved by {}", rank))));
    EXPECT_TRUE(none_runs(folder));
  }
}

TEST_F(Signals, AWorkerThatCouldNotSaveIsNamed) {
  const auto folder = fresh_folder();
  const auto sender = signal_when_all_run(folder, 2, SIGTERM);
  const auto told = launch_and_listen(
      shell_workers(2, fmt::format("trap 'test $RANK = 0 && exit 143; echo penstock: full >&2; exit 1' TERM; : >{}/$$; "
                                   "while :; do sleep 0.01; done",
                                   folder.string())));
  EXPECT_EQ(exit_code(told.result), 1) << "143 says that all is saved";
  EXPECT_EQ(told.result.message, "stopped by signal 15 (SIGTERM); rank 1 ended with exit code 1: penstock: full");
}

TEST_F(Signals, WhoIgnoresThemIsKilledAfterTheGrace) {
  const auto folder = fresh_folder();
  auto settings = shell_workers(
      2, fmt::format("test $RANK = 0 || trap '' TERM; : >{}/$$; while :; do sleep 0.01; done", folder.string()));
  settings.stop_grace = {50};
  const auto sender = signal_when_all_run(folder, 2, SIGTERM);
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.message, "stopped by signal 15 (SIGTERM); rank 1 did not leave in time and was killed");
  EXPECT_TRUE(none_runs(folder));
  EXPECT_FALSE(has_children());
}

TEST_F(Signals, ThatComeAgainKillAtOnce) {
  auto settings = shell_workers(2, "trap '' TERM; while :; do sleep 0.01; done");
  settings.stop_grace = {600'000};
  const auto sender = std::jthread([](const std::stop_token& done) {
    while (!done.stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      ::kill(::getpid(), SIGTERM);
    }
  });
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Stopped);
  EXPECT_THAT(told.result.killed, ElementsAre(0, 1));
  EXPECT_EQ(exit_code(told.result), 1);
}

TEST_F(Signals, OfAWorkerEndTheLaunchAsThoseOfTheLauncherDo) {
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    auto settings =
        shell_workers(3, fmt::format("trap 'exit {0}' HUP INT TERM; test $RANK = 1 && exit {0}; while :; do "
                                     "sleep 0.01; done",
                                     128 + signal));
    settings.restarts = 5;
    const auto told = launch_and_listen(settings);
    EXPECT_EQ(told.result.outcome, LaunchOutcome::Stopped) << told.result.message;
    EXPECT_EQ(exit_code(told.result), 128 + signal);
    EXPECT_EQ(told.result.attempt.number, 0);
  }
}

TEST_F(Signals, AWorkerThatAnotherSignalEndsMeanwhileHasNotSaved) {
  const auto folder = fresh_folder();
  const auto sender = signal_when_all_run(folder, 2, SIGTERM);
  const auto told = launch_and_listen(shell_workers(
      2, fmt::format("trap 'test $RANK = 0 && exit 143; kill -SEGV $$' TERM; : >{}/$$; while :; do sleep 0.01; done",
                     folder.string())));
  EXPECT_EQ(exit_code(told.result), 1);
  EXPECT_THAT(told.result.message, HasSubstr("rank 1 ended by signal 11 (SIGSEGV)"));
}

TEST_F(Signals, EndTheWaitForARestart) {
  auto settings = shell_workers(2, "exit 1");
  settings.restarts = 1;
  settings.first_back_off = settings.longest_back_off = {600'000};
  LaunchHooks hooks;
  bool asked = false;
  hooks.command = [&](const LaunchAttempt&) {
    asked = true;
    return settings.command;
  };
  std::atomic<int> started = 0;
  hooks.started = [&](int /*rank*/, int /*process_id*/) { ++started; };
  const auto sender = std::jthread([&] {
    // Both have ended, and the launcher knows it.
    static_cast<void>(comes_true([&] { return started == 2 && !has_children(); }));
    ::kill(::getpid(), SIGTERM);
  });
  const auto told = launch_and_listen(settings, hooks);
  EXPECT_TRUE(asked);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Stopped);
  EXPECT_EQ(told.result.attempt.number, 0);
}

TEST_F(Signals, AreHeldForWorkersThatAreNotReady) {
  LaunchSettings settings = tells_its_mask();
  settings.hold_stop_signals = true;
  const auto told = launch_and_listen(settings);
  ASSERT_EQ(told.lines.size(), 1U);
  EXPECT_THAT(told.lines[0], testing::EndsWith("0000000000004003")) << "15, 2 and 1";
}

TEST_F(Signals, AreUnblockedInWorkersAndHandledByThemAlone) {
  // Where a worker began with SIGTERM blocked, it could never be asked to save.
  const auto told = launch_and_listen(tells_its_mask());
  ASSERT_EQ(told.lines.size(), 1U);
  EXPECT_THAT(told.lines[0], testing::EndsWith("0000000000000000"));
}

}  // namespace
}  // namespace penstock
