#include "penstock/launch/launch.h"

#include <arpa/inet.h>
#include <csignal>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <set>
#include <sys/socket.h>
#include <unistd.h>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "shell_workers.h"

namespace penstock {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

std::string refusal(const LaunchSettings& settings, ErrorKind kind = ErrorKind::BadInput) {
  try {
    static_cast<void>(launch(settings));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    EXPECT_FALSE(has_children());
    return error.what();
  }
  return "";
}

bool port_is_free(int port) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool bound = ::bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(descriptor);
  return bound;
}

TEST(Launch, TellsEachWorkerWhoItIs) {
  const auto told = launch_and_listen(
      shell_workers(3, "echo warn $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $PENSTOCK_ATTEMPT >&2"));
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished);
  EXPECT_EQ(exit_code(told.result), 0);
  EXPECT_EQ(told.result.message, "");
  EXPECT_EQ(std::set<std::string>(told.lines.begin(), told.lines.end()),
            (std::set<std::string>{"rank 0: warn 0 0 3 3 127.0.0.1 0", "rank 1: warn 1 1 3 3 127.0.0.1 0",
                                   "rank 2: warn 2 2 3 3 127.0.0.1 0"}));
  EXPECT_FALSE(has_children());
}

TEST(Launch, ShowsEachWorkerUnderItsName) {
  LaunchSettings settings =
      shell_workers(2, "tr '\\0' '|' </proc/$$/cmdline | sed 's/^/warn /' | cut -c 1-40 >&2; echo >&2");
  settings.name = "penstock";
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished) << told.result.message;
  EXPECT_THAT(told.lines, Contains(HasSubstr("warn penstock worker 0 of 2|-c|")));
  EXPECT_THAT(told.lines, Contains(HasSubstr("warn penstock worker 1 of 2|-c|")));
}

TEST(Launch, RunsSixtyFourWorkers) {
  const auto told = launch_and_listen(shell_workers(64, "echo warn $RANK >&2"));
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished) << told.result.message;
  EXPECT_EQ(std::set<std::string>(told.lines.begin(), told.lines.end()).size(), 64U);
  EXPECT_FALSE(has_children());
}

TEST(Launch, GivesRankZeroAloneASocketThatListensAndNobodyElseHolds) {
  // A connection succeeds before rank 0 accepts any: the socket listened before it was started.
  const std::string script = R"(exec python3 -c '
import os, socket, sys
rank, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
if rank == 0:
    listening = socket.socket(fileno=int(os.environ["PENSTOCK_LISTEN_DESCRIPTOR"]))
    peer, _ = listening.accept()
    sys.stderr.write("warn %d %s\n" % (port, peer.recv(99).decode()))
else:
    assert "PENSTOCK_LISTEN_DESCRIPTOR" not in os.environ
    held = [os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
    sockets = [name for name in held if name.startswith("socket:")]
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.send(("holds %d" % len(sockets)).encode())
')";
  const auto told = launch_and_listen(shell_workers(2, script));
  ASSERT_EQ(told.result.outcome, LaunchOutcome::Finished) << told.result.message;
  ASSERT_EQ(told.lines.size(), 1U);
  EXPECT_THAT(told.lines[0], testing::EndsWith("holds 0"));
}

TEST(Launch, LeavesThePortFree) {
  const auto told =
      launch_and_listen(shell_workers(2, "test $RANK = 0 || exec sleep 1000; echo $MASTER_PORT >&2; exit 1"));
  ASSERT_FALSE(told.lines.empty());
  EXPECT_TRUE(port_is_free(std::stoi(told.lines[0])));
}

TEST(Launch, GivesEveryAttemptAnIdentityOfItsOwn) {
  auto settings =
      shell_workers(2, "echo warn $PENSTOCK_ATTEMPT $PENSTOCK_RUN_IDENTITY >&2; test $PENSTOCK_ATTEMPT = 1");
  settings.restarts = 1;
  // The second to say a line is not heard: one line for an attempt whose ranks agree.
  const auto told = launch_and_listen(settings);
  ASSERT_EQ(told.result.outcome, LaunchOutcome::Finished);
  std::set<std::string> identities;
  for (const std::string& line : told.lines)
    if (line.starts_with("rank ") && line.find("restart") == std::string::npos) identities.insert(line.substr(15));
  ASSERT_EQ(identities.size(), 2U);
  for (const std::string& identity : identities) EXPECT_EQ(identity.size(), 16U) << identity;
}

TEST(Launch, RestartsAsOftenAsAskedAndNoMore) {
  auto settings = shell_workers(2, "");
  settings.restarts = 3;
  std::vector<int> attempts;
  LaunchHooks hooks;
  hooks.command = [&](const LaunchAttempt& attempt) {
    attempts.push_back(attempt.number);
    return std::vector<std::string>{"sh", "-c", "echo penstock: no disk >&2; exit 1"};
  };
  const auto told = launch_and_listen(settings, hooks);
  EXPECT_THAT(attempts, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Failed);
  EXPECT_EQ(exit_code(told.result), 1);
  EXPECT_THAT(told.result.message, HasSubstr("ended with exit code 1: penstock: no disk after 3 restarts"));
  EXPECT_THAT(told.lines, Contains(HasSubstr("restart 3 of 3 in 4 ms")));
}

TEST(Launch, GoesOnWhereARestartHelps) {
  auto settings = shell_workers(3, "test $PENSTOCK_ATTEMPT = 2 || kill -9 $$");
  settings.restarts = 5;
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished);
  EXPECT_EQ(told.result.attempt, (LaunchAttempt{2, 3}));
  EXPECT_THAT(told.lines, Contains(HasSubstr("ended by signal 9 (killed); restart 1 of 5 in 1 ms")));
}

TEST(Launch, NeverRestartsAfterBadInput) {
  // Rank 0 fails of rank 1's end; that rank 1 had bad input is what counts.
  auto settings = shell_workers(2,
                                "trap 'exit 1' TERM; test $RANK = 0 || { echo 'penstock: no such file' >&2; exit 2; }; "
                                "while :; do sleep 0.01; done");
  settings.restarts = 5;
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.attempt.number, 0);
  EXPECT_EQ(exit_code(told.result), 2);
  EXPECT_EQ(to_string(*told.result.failure), "rank 1 ended with exit code 2: penstock: no such file");
}

TEST(Launch, ElasticGoesOnWithThoseThatAreLeft) {
  auto settings =
      shell_workers(4, "test $RANK -lt $((WORLD_SIZE - 1)) || test $WORLD_SIZE = 1 || kill -9 $$; exec sleep 0.01");
  settings.restarts = 9;
  settings.elastic = true;
  EXPECT_EQ(launch_and_listen(settings).result.attempt, (LaunchAttempt{3, 1}));
  settings.fewest_processes = 2;
  settings.restarts = 4;
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Failed);
  EXPECT_EQ(told.result.attempt, (LaunchAttempt{4, 2}));
  EXPECT_THAT(told.lines, Contains(HasSubstr("restart 1 of 4 with 3 processes in")));
}

TEST(Launch, ElasticCountsAllThatWereKilled) {
  const auto folder = fresh_folder();
  // Ranks 0 to 2 die one after the other once all six can no longer be ended by SIGTERM.
  auto settings = shell_workers(6, "");
  settings.command.back() = fmt::format(
      "test $WORLD_SIZE = 6 || exit 0; trap '' TERM; : >{0}/$$; "
      "while test $(ls {0} | wc -l) -lt 6; do sleep 0.01; done; sleep 0.0$RANK; test $RANK -gt 2 || kill -9 $$; "
      "sleep 0.3; exit 1",
      folder.string());
  settings.restarts = 1;
  settings.elastic = true;
  settings.stop_grace = {600'000};
  const auto told = launch_and_listen(settings);
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished);
  EXPECT_EQ(told.result.attempt, (LaunchAttempt{1, 3}));
}

TEST(Launch, SaysOnceWhatSeveralRanksSay) {
  const auto told = launch_and_listen(shell_workers(
      4,
      "echo progress of $RANK >&2; echo 'penstock: the disk is full' >&2; test $RANK = 0 || exec sleep 100; exit 1"));
  EXPECT_EQ(std::count_if(told.lines.begin(), told.lines.end(),
                          [](const auto& line) { return line.ends_with("penstock: the disk is full"); }),
            1);
  EXPECT_THAT(told.lines, Contains("progress of 0"));
  EXPECT_THAT(told.lines, testing::Not(Contains(HasSubstr("progress of 1"))));
}

TEST(Launch, ShowsAllThatTheRankThatFailedHadSaid) {
  const auto told = launch_and_listen(
      shell_workers(2, "test $RANK = 1 || exec sleep 100; echo opening the data >&2; printf 'no end' >&2; exit 7"));
  EXPECT_THAT(told.lines, ElementsAre("rank 1: opening the data", "rank 1: no end"));
  EXPECT_EQ(to_string(*told.result.failure), "rank 1 ended with exit code 7: no end");
}

TEST(Launch, PassesOnRankZerosOutputAlone) {
  testing::internal::CaptureStdout();
  static_cast<void>(launch_and_listen(shell_workers(3, "echo out of $RANK")));
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "out of 0\n");
}

TEST(Launch, AWorkerThatWritesMuchIsReadToItsEnd) {
  // More than a pipe holds, so that a launcher that did not read would wait for ever.
  const auto told = launch_and_listen(shell_workers(2, "seq 1 50000 >&2"));
  EXPECT_EQ(told.result.outcome, LaunchOutcome::Finished);
  EXPECT_EQ(told.lines.size(), 50'000U);
  EXPECT_EQ(told.lines.back(), "50000");
}

TEST(Launch, SaysInOneLineWhatCannotBeStarted) {
  auto settings = shell_workers(3, "");
  settings.command = {"/no/such/program"};
  EXPECT_EQ(refusal(settings),
            "cannot start '/no/such/program': No such file or directory; expected a program that can be executed; "
            "check its name and permissions");
  settings.command = {};
  EXPECT_THAT(refusal(settings), HasSubstr("an empty command"));
}

TEST(Launch, RefusesSettingsOutOfRange) {
  auto settings = shell_workers(0, "true");
  EXPECT_THAT(refusal(settings), HasSubstr("the number of processes is 0"));
  settings = shell_workers(2, "true");
  settings.elastic = true;
  settings.fewest_processes = 3;
  EXPECT_THAT(refusal(settings), HasSubstr("the fewest processes is 3; expected 1 to 2"));
  settings = shell_workers(2, "true");
  settings.stop_grace = {-1};
  EXPECT_THAT(refusal(settings), HasSubstr("-1 ms"));
}

TEST(Launch, RefusesAnAddressOfAnotherMachine) {
  auto settings = shell_workers(2, "true");
  settings.address = "192.0.2.1";  // for documentation, nobody's
  EXPECT_EQ(refusal(settings),
            "cannot listen on 192.0.2.1: Cannot assign requested address; expected an address or name of this machine; "
            "use 127.0.0.1, or see ip address");
  settings.address = "";
  EXPECT_THAT(refusal(settings), HasSubstr("cannot listen on ''"));
}

TEST(Launch, ListensOnAllAddressesOnlyWhereAsked) {
  auto settings =
      shell_workers(1, "echo $MASTER_ADDR >&2; grep -c 00000000:$(printf %04X $MASTER_PORT) /proc/net/tcp >&2");
  settings.address = "0.0.0.0";
  EXPECT_THAT(launch_and_listen(settings).lines, ElementsAre("127.0.0.1", "1"));
  settings.address = "127.0.0.1";
  settings.command.back() += "; true";
  EXPECT_THAT(launch_and_listen(settings).lines, ElementsAre("127.0.0.1", "0"));
}

TEST(Launch, WhatAHookThrowsIsThrownWhenNobodyIsLeft) {
  LaunchHooks hooks;
  hooks.started = [](int rank, int) {
    if (rank == 2) throw std::runtime_error("enough");
  };
  EXPECT_THROW(static_cast<void>(launch(shell_workers(4, "exec sleep 100"), hooks)), std::runtime_error);
  EXPECT_FALSE(has_children());
}

TEST(Launch, PutsSignalsBackAndKeepsChildrenFromItsHandlers) {
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  struct sigaction before = {};
  ::sigaction(SIGCHLD, &ignore, &before);
  const auto told = launch_and_listen(shell_workers(2, "exit 3"));
  EXPECT_EQ(told.result.failure->exit_code, 3);
  struct sigaction now = {};
  ::sigaction(SIGCHLD, &before, &now);
  EXPECT_EQ(now.sa_handler, SIG_IGN);
  sigset_t blocked;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  EXPECT_EQ(sigismember(&blocked, SIGTERM), 0);
}

}  // namespace
}  // namespace penstock
