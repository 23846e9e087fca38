// How processes find each other, in a store that lies in memory and by a clock that the waits move.
#include "transport/c10d/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdexcept>
#include <thread>

#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "penstock/base/error.h"
#include "penstock/transport/c10d.h"
#include "penstock/transport/transport.h"

#include "unit/transport/fake_channel.h"

namespace penstock::rendezvous_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Rendezvouses : public testing::Test {
 protected:
  Rendezvous make(int process, int processes, const std::string& identity = "run 1",
                  std::function<int()> asked_to_stop = {}) {
    ProcessSettings settings;
    settings.process = process;
    settings.processes = processes;
    settings.ranks = 2 * processes;
    settings.run_identity = identity;
    settings.join_timeout = {5'000};
    settings.asked_to_stop = std::move(asked_to_stop);
    return {store, settings, {clock, [this] { pause(); }, [this] { check(); }}};
  }

  // What a process says that is there.
  void has_joined(int process) {
    store->set("penstock/run 1/joined/" + std::to_string(process), std::string("2 ranks"));
  }

  c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::HashStore>();
  StandingClock clock;
  int pauses = 0;
  std::function<void()> on_pause;
  std::function<void()> check = [] {};

 private:
  void pause() {
    ++pauses;
    clock.advance({10});
    if (on_pause) on_pause();
  }
};

std::string refusal(Rendezvous& rendezvous) {
  try {
    rendezvous.meet();
  } catch (const Error& error) {
    return error.what();
  }
  return "met";
}

TEST_F(Rendezvouses, AllThatComeMeetAndGetEachOthersTexts) {
  has_joined(1);
  Rendezvous first = make(0, 2);
  EXPECT_EQ(refusal(first), "met");
  EXPECT_EQ(first.run_identity(), "run 1");
  store->set("penstock/run 1/colour/1", std::string("blue"));
  EXPECT_THAT(first.exchange("colour", "red"), ElementsAre("red", "blue"));
  EXPECT_EQ(pauses, 0) << "nobody waits for what is there";
}

TEST_F(Rendezvouses, WhoHasNotComeInTimeIsNamed) {
  has_joined(2);
  Rendezvous first = make(0, 4);
  EXPECT_THAT(refusal(first),
              HasSubstr("no process 1 (ranks 2 to 3), process 3 (ranks 6 to 7) within 5 s; expected all 4"));
  EXPECT_EQ(pauses, 500);
}

TEST_F(Rendezvouses, OneThatComesWhileOthersWaitIsMet) {
  on_pause = [this] {
    if (pauses == 3) has_joined(0);
  };
  Rendezvous second = make(1, 2);
  EXPECT_EQ(refusal(second), "met");
  EXPECT_EQ(pauses, 3);
}

TEST_F(Rendezvouses, AProcessThatIsThereTwiceIsRefused) {
  has_joined(0);
  Rendezvous second = make(1, 2);
  EXPECT_EQ(refusal(second), "met");
  Rendezvous again = make(1, 2);
  EXPECT_THAT(refusal(again), HasSubstr("another process 1 of this run"));
}

TEST_F(Rendezvouses, ProcessZeroDrawsTheRunsIdentity) {
  Rendezvous first = make(0, 1, "");
  EXPECT_EQ(refusal(first), "met");
  EXPECT_EQ(first.run_identity().size(), 16U);
  EXPECT_EQ(store->get_to_str("penstock/identity"), first.run_identity());
}

TEST_F(Rendezvouses, WithoutProcessZeroThereIsNoIdentity) {
  Rendezvous second = make(1, 2, "");
  EXPECT_THAT(refusal(second), HasSubstr("no process 0 within 5 s"));
}

TEST_F(Rendezvouses, ARequestToStopEndsTheWaitOfAll) {
  Rendezvous second = make(1, 3, "run 1", [] { return 15; });
  EXPECT_THROW(second.meet(), StoppedWhileJoining);
  EXPECT_EQ(pauses, 0);
  // Another, which nobody has asked.
  Rendezvous third = make(2, 3, "run 1", [] { return 0; });
  try {
    third.meet();
    ADD_FAILURE() << "expected StoppedWhileJoining";
  } catch (const StoppedWhileJoining& stopped) {
    EXPECT_EQ(stopped.stop_signal(), 15);
  }
}

// The store goes with process 0.
TEST_F(Rendezvouses, ProcessZeroLeavesLastButDoesNotWaitForEver) {
  Rendezvous first = make(0, 2, "run 1", [] { return 2; });
  EXPECT_THROW(first.meet(), StoppedWhileJoining);
  EXPECT_EQ(pauses, 500);
}

TEST_F(Rendezvouses, ProcessZeroLeavesOnceTheOthersHave) {
  on_pause = [this] {
    if (pauses == 3) store->set("penstock/run 1/left/1", std::string("left"));
  };
  Rendezvous first = make(0, 2, "run 1", [] { return 2; });
  EXPECT_THROW(first.meet(), StoppedWhileJoining);
  EXPECT_EQ(pauses, 3);
}

TEST_F(Rendezvouses, ARequestThatComesOnceAllAreThereIsLeftToTheSteps) {
  has_joined(1);
  Rendezvous first = make(0, 2, "run 1", [] { return 15; });
  EXPECT_EQ(refusal(first), "met");
  on_pause = [this] { store->set("penstock/run 1/colour/1", std::string("blue")); };
  EXPECT_THAT(first.exchange("colour", "red"), ElementsAre("red", "blue"));
}

TEST_F(Rendezvouses, AnAbortEndsAnExchange) {
  has_joined(1);
  Rendezvous first = make(0, 2);
  first.meet();
  check = [this] {
    if (pauses == 2) throw Aborted("rank 3 gave up");
  };
  EXPECT_THROW(static_cast<void>(first.exchange("colour", "red")), Aborted);
}

// A store that answers nothing, as that of a process that has gone.
class GoneStore final : public c10d::HashStore {
 public:
  void set(const std::string&, const std::vector<std::uint8_t>&) override { throw std::runtime_error("broken pipe"); }
};

TEST_F(Rendezvouses, AStoreThatIsGoneIsSaidInPlainWords) {
  has_joined(1);
  Rendezvous first = make(0, 2);
  first.meet();
  store = c10::make_intrusive<GoneStore>();
  Rendezvous second = make(1, 2);
  EXPECT_THAT(refusal(second), HasSubstr("process 0 gone or stopped while the processes came together"));
}

}  // namespace
}  // namespace penstock::rendezvous_test
