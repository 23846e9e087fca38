#include "penstock/launch/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

std::optional<WorkerEnvironment> read(const Variables& variables) {
  return worker_environment([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

Variables with(Variables variables, const Variables& others) {
  for (const auto& [name, value] : others) variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

std::string refusal(const Variables& variables) {
  try {
    static_cast<void>(read(variables));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

const Variables master = {{"MASTER_ADDR", "node-01"}, {"MASTER_PORT", "29500"}};
const Variables torchrun = with(master, {{"RANK", "3"},
                                         {"WORLD_SIZE", "4"},
                                         {"LOCAL_RANK", "1"},
                                         {"LOCAL_WORLD_SIZE", "2"},
                                         {"TORCHELASTIC_RUN_ID", "job7"},
                                         {"TORCHELASTIC_RESTART_COUNT", "2"}});
const Variables slurm = {{"SLURM_PROCID", "5"},   {"SLURM_NTASKS", "8"},  {"SLURM_LOCALID", "1"},
                         {"SLURM_JOB_ID", "77"},  {"SLURM_STEP_ID", "3"}, {"SLURM_JOB_NODELIST", "gpu[07-08,12],login"},
                         {"MASTER_PORT", "29500"}};

TEST(Environment, NobodyStartedTheProcess) {
  EXPECT_EQ(read({}), std::nullopt);
  EXPECT_EQ(read(master), std::nullopt);
  EXPECT_EQ(read({{"RANK", ""}, {"WORLD_SIZE", ""}}), std::nullopt);
}

TEST(Environment, UnderstandsTorchrun) {
  EXPECT_EQ(read(torchrun), (WorkerEnvironment{3, 4, 1, 2, "node-01", 29500, "job7", 2, {}}));
}

TEST(Environment, UnderstandsItsOwnLauncher) {
  const auto own = with(
      torchrun, {{"PENSTOCK_RUN_IDENTITY", "00ff"}, {"PENSTOCK_ATTEMPT", "1"}, {"PENSTOCK_LISTEN_DESCRIPTOR", "9"}});
  const auto other = read(own);
  EXPECT_EQ(other->run_identity, "00ff");
  EXPECT_EQ(other->attempt, 1);
  EXPECT_EQ(other->listen_descriptor, std::nullopt);
  EXPECT_EQ(read(with(own, {{"RANK", "0"}}))->listen_descriptor, 9);
  EXPECT_THAT(refusal(with(own, {{"RANK", "0"}, {"PENSTOCK_LISTEN_DESCRIPTOR", "1"}})),
              HasSubstr("PENSTOCK_LISTEN_DESCRIPTOR is '1'"));
}

TEST(Environment, UnderstandsMpirun) {
  EXPECT_EQ(read(with(master, {{"OMPI_COMM_WORLD_RANK", "1"},
                               {"OMPI_COMM_WORLD_SIZE", "2"},
                               {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                               {"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}})),
            (WorkerEnvironment{1, 2, 0, 1, "node-01", 29500, "", 0, {}}));
  EXPECT_EQ(read(with(master, {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}})),
            (WorkerEnvironment{1, 2, 1, {}, "node-01", 29500, "", 0, {}}));
}

TEST(Environment, UnderstandsSrun) {
  EXPECT_EQ(read(slurm), (WorkerEnvironment{5, 8, 1, {}, "gpu07", 29500, "77.3", 0, {}}));
  EXPECT_EQ(read(with(slurm, master))->master_address, "node-01");
  EXPECT_EQ(read(with(slurm, {{"SLURM_JOB_NODELIST", "a1,a2"}}))->master_address, "a1");
  EXPECT_EQ(read(with(slurm, {{"SLURM_STEP_NODELIST", "rack[2-3]n[04,06]"}}))->master_address, "rack2n04");
}

TEST(Environment, SrunsLaunchingNodeIsRankZerosOnlyWhereThereIsOneNode) {
  const auto variables = with(without(slurm, "SLURM_JOB_NODELIST"), {{"SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7"}});
  EXPECT_THAT(refusal(variables), HasSubstr("MASTER_ADDR is not set"));
  EXPECT_EQ(read(with(variables, {{"SLURM_JOB_NUM_NODES", "1"}}))->master_address, "10.0.0.7");
  EXPECT_THAT(refusal(with(slurm, {{"SLURM_JOB_NODELIST", "gpu[07"}})), HasSubstr("MASTER_ADDR is not set"));
}

TEST(Environment, ABatchScriptIsNoRank) { EXPECT_EQ(read(without(slurm, "SLURM_STEP_ID")), std::nullopt); }

TEST(Environment, RefusesHalfOfAPair) {
  EXPECT_EQ(
      refusal(without(torchrun, "RANK")),
      "WORLD_SIZE without RANK; expected both or neither; set the other one, or unset it to train in one process");
  EXPECT_THAT(refusal(without(torchrun, "WORLD_SIZE")), HasSubstr("RANK without WORLD_SIZE"));
  EXPECT_THAT(refusal(without(slurm, "SLURM_NTASKS")), HasSubstr("SLURM_PROCID without SLURM_NTASKS"));
}

TEST(Environment, RefusesRanksThatCannotBe) {
  EXPECT_THAT(refusal(with(torchrun, {{"RANK", "4"}})),
              HasSubstr("RANK is 4 and WORLD_SIZE is 4; expected a rank below 4"));
  for (const char* wrong : {"-1", "one", "1x", " 1", "1.0", "99999999999999999999"})
    EXPECT_THAT(refusal(with(torchrun, {{"RANK", wrong}})), HasSubstr("RANK is '")) << wrong;
  EXPECT_THAT(refusal(with(torchrun, {{"WORLD_SIZE", "0"}})), HasSubstr("WORLD_SIZE is '0'"));
  EXPECT_THAT(refusal(with(torchrun, {{"LOCAL_RANK", "2"}})), HasSubstr("LOCAL_RANK is 2; expected below 2"));
}

TEST(Environment, RefusesAMissingOrWrongMaster) {
  EXPECT_THAT(refusal(without(torchrun, "MASTER_ADDR")), HasSubstr("MASTER_ADDR is not set"));
  EXPECT_THAT(refusal(without(torchrun, "MASTER_PORT")), HasSubstr("MASTER_PORT is not set"));
  for (const char* wrong : {"node-01:29500", "http://node", "no de", "-x", "127.0.0.300", "1.2.3", "nöde", "::zz"})
    EXPECT_THAT(refusal(with(torchrun, {{"MASTER_ADDR", wrong}})), HasSubstr("MASTER_ADDR is '")) << wrong;
  for (const char* wrong : {"0", "65536", "http", "-5", "29500/tcp"})
    EXPECT_THAT(refusal(with(torchrun, {{"MASTER_PORT", wrong}})), HasSubstr("MASTER_PORT is '")) << wrong;
  for (const char* right : {"::1", "fe80::1%eth0", "10.0.0.1", "a.b-c_d.example"})
    EXPECT_EQ(read(with(torchrun, {{"MASTER_ADDR", right}}))->master_address, right);
}

TEST(Environment, OneRankNeedsNoMaster) {
  const auto alone = read({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}});
  EXPECT_EQ(alone->master_address, "127.0.0.1");
  EXPECT_EQ(alone->master_port, 0);
}

}  // namespace
}  // namespace penstock
