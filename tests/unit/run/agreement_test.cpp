// What the processes of a run must have alike: here two processes that are threads of one.
#include "run/agreement.h"

#include <array>
#include <filesystem>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unistd.h>

#include <ATen/ATen.h>

#include "penstock/base/error.h"
#include "penstock/base/listening.h"

namespace penstock::agreement_test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

// What `act` is refused with in each of two processes; empty where it is not.
std::array<std::string, 2> refusals(const std::function<void(ProcessGroup&)>& act) {
  ProcessSettings settings;
  settings.processes = settings.ranks = 2;
  const int socket = listen_on(settings.address, 0);
  settings.port = port_of(socket);
  std::array<std::string, 2> refused;
  std::array<std::thread, 2> threads;
  for (int process = 0; process < 2; ++process) {
    settings.process = process;
    settings.listening_socket = process == 0 ? socket : -1;
    const auto place = static_cast<std::size_t>(process);
    threads.at(place) = std::thread([own = settings, &act, &refusal = refused.at(place)] {
      ProcessGroup group(own);
      try {
        act(group);
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::BadInput);
        refusal = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return refused;
}

TEST(Agreement, TheFirstSettingThatDiffersIsNamedInEveryProcess) {
  TrainSettings settings;
  EXPECT_THAT(refusals([&](ProcessGroup& group) { check_same_settings(group, settings); }), Each(""));
  const auto refused = refusals([&](ProcessGroup& group) {
    TrainSettings own = settings;
    own.training.batch = 32 + group.process();
    own.training.steps = 100 + group.process();
    check_same_settings(group, own);
  });
  EXPECT_THAT(refused, Each(AllOf(HasSubstr("process 1 has batch = 33, process 0 has batch = 32"),
                                  HasSubstr("the same settings in every process"))));
}

TEST(Agreement, TheAddressThatAProcessListensOnIsItsOwn) {
  EXPECT_THAT(refusals([](ProcessGroup& group) {
                TrainSettings own;
                own.processes.listen = group.process() == 0 ? "10.0.0.1" : "10.0.0.2";
                check_same_settings(group, own);
              }),
              Each(""));
}

Job job_on(const at::Tensor& rows) {
  Job job;
  job.train = samples_of({rows}, {rows});
  return job;
}

TEST(Agreement, DataOfAnotherSizeOrContentIsRefusedInEveryProcess) {
  const at::Tensor rows = at::arange(64, at::kFloat).view({16, 4});
  EXPECT_THAT(refusals([&](ProcessGroup& group) { check_same_data(group, job_on(rows.clone())); }), Each(""));
  for (const auto& other : {rows.slice(0, 0, 15), rows + 1, rows.flip(0)})
    EXPECT_THAT(
        refusals([&](ProcessGroup& group) { check_same_data(group, job_on(group.process() == 0 ? rows : other)); }),
        Each(AllOf(HasSubstr("process 1 has data of"), HasSubstr("process 0 of"))));
}

TEST(Agreement, AllTakeTheCheckpointOfTheFirst) {
  const fs::path there = fs::path(testing::TempDir()) / ("agreement with a space " + std::to_string(::getpid()));
  fs::create_directories(there);
  const auto agreed_on = [](const CheckpointId& id) {
    return [id](ProcessGroup& group) {
      const auto own = group.process() == 0 ? std::optional(id) : std::nullopt;
      EXPECT_EQ(agreed_checkpoint(group, own), id);
    };
  };
  EXPECT_THAT(refusals(agreed_on({12, there})), Each(""));
  fs::remove_all(there);
  EXPECT_THAT(refusals(agreed_on({12, there})), Each(HasSubstr("a folder that every process sees")));
  EXPECT_THAT(refusals([](ProcessGroup& group) { EXPECT_EQ(agreed_checkpoint(group, std::nullopt), std::nullopt); }),
              Each(""));
}

}  // namespace
}  // namespace penstock::agreement_test
