#include <algorithm>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "penstock/base/error.h"
#include "penstock/base/file.h"

#include "schedule_commands.h"
#include "unit/apps/outcome.h"
#include "unit/plan/networks.h"

namespace penstock::app {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Json = nlohmann::json;

/// Runs `penstock plan LINE`.
Outcome plan(const std::string& line) {
  CLI::App app("penstock");
  return outcome_of(app, "plan " + line, add_plan_command(app));
}

std::filesystem::path in_folder(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) / ("plan_command_" + name);
}

std::string cost_file(const LayerCosts& costs, const std::string& name) {
  const auto path = in_folder(name);
  save_layer_costs(costs, path);
  return path.string();
}

LayerCosts some_costs() {
  std::mt19937 random(21);
  LayerCosts costs = random_network(random, 10);
  costs.model = {{"name", "gpt"}, {"width", "128"}};
  costs.machine = {{"name", "here"}};
  return costs;
}

TEST(PlanCommand, PrintsTheBestAndWhy) {
  const Outcome outcome = plan("--cost " + cost_file(some_costs(), "why.json") +
                               " --ranks 3 --batch 24 --top 4 --effort 1 --model name=gpt,width=128 --machine here");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(StartsWith(" #  schedule"), HasSubstr("\n 4  "), Not(HasSubstr("\n 5  ")),
                                 HasSubstr("first layers of the stages: 0,"), HasSubstr("memory by rank: "),
                                 HasSubstr("What would change the answer:\n"), HasSubstr("a batch twice as large"),
                                 HasSubstr("links ten times as fast"), HasSubstr("the best other schedule")));
}

TEST(PlanCommand, AnswersAsJsonAndKeepsToTheRestrictions) {
  const Outcome outcome =
      plan("--cost " + cost_file(some_costs(), "json.json") +
           " --ranks 2 --batch 16 --schedule 1f1b,gpipe --microbatches 4,8 --recompute full --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json answer = Json::parse(outcome.out);
  ASSERT_EQ(answer["plans"].size(), 4);
  for (const Json& entry : answer["plans"]) {
    EXPECT_THAT(entry["schedule"], testing::AnyOf("1f1b", "gpipe"));
    EXPECT_EQ(entry["recompute"], "full");
  }
}

TEST(PlanCommand, WritesPlanDrawingSweepAndExport) {
  const std::string cost = cost_file(some_costs(), "files.json");
  const auto toml = in_folder("plan.toml");
  const auto folder = in_folder("export");
  const Outcome outcome = plan("--cost " + cost + " --ranks 2 --batch 16 --effort 1 --memory 25MB -o " + toml.string() +
                               " --draw " + in_folder("step.svg").string() + " --sweep " +
                               in_folder("sweep.svg").string() + " --export-pytorch " + folder.string());
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(read_file(toml), AllOf(HasSubstr("stages = "), HasSubstr("\n[prediction]\n"), HasSubstr("step-ms = ")));
  EXPECT_THAT(read_file(in_folder("step.svg")), StartsWith("<svg"));
  EXPECT_THAT(read_file(in_folder("sweep.svg")), AllOf(StartsWith("<svg"), HasSubstr("1f1b")));
  const Json exported = Json::parse(read_file(folder / "plan.json"));
  EXPECT_EQ(exported["stages"].back()["end_layer"], 10);
  EXPECT_THAT(read_file(folder / "schedule.csv"), StartsWith("0F0,"));
  EXPECT_EQ(16 % exported["microbatches"].get<int>(), 0);
  EXPECT_EQ(exported["model"]["name"], "gpt");
  EXPECT_THAT(read_file(folder / "train.py"), HasSubstr("_load_csv"));
  EXPECT_THAT(read_file(folder / "network_layers.py"), HasSubstr("def layers_of("));
  EXPECT_THAT(read_file(folder / "README.md"), HasSubstr("torchrun --nproc-per-node 2 train.py"));
  EXPECT_THAT(outcome.out, HasSubstr("sweep over the microbatches: use M = "));
}

TEST(PlanCommand, WritesPlansForTorchtitanAndMegatron) {
  const std::string line = "--cost " + cost_file(some_costs(), "others.json") + " --ranks 2 --batch 16 --effort 1 ";
  const auto folder = in_folder("titan");
  const auto arguments = in_folder("megatron.txt");
  ASSERT_EQ(plan(line + "--export-torchtitan " + folder.string()).code, 0);
  EXPECT_THAT(read_file(folder / "torchtitan.toml"),
              AllOf(HasSubstr("pipeline_parallel_schedule_csv = \"" + (folder / "schedule.csv").string() + "\""),
                    HasSubstr("[\"tok_embeddings\""), HasSubstr("\"norm\", \"output\", \"lm_head\"],\n]")));
  EXPECT_THAT(read_file(folder / "schedule.csv"), StartsWith("0F0,"));
  const Outcome megatron = plan(line + "--export-megatron " + arguments.string());
  ASSERT_EQ(megatron.code, 0) << megatron.err;
  EXPECT_THAT(read_file(arguments),
              AllOf(HasSubstr("--num-layers 8\n"), HasSubstr("--pipeline-model-parallel-layout E"),
                    HasSubstr("--global-batch-size 16\n")));
}

TEST(PlanCommand, CostsFromABusyMachineAreToldFromOthers) {
  LayerCosts costs = some_costs();
  EXPECT_THAT(plan("--cost " + cost_file(costs, "quiet.json") + " --ranks 2 --batch 16 --effort 1").out,
              Not(HasSubstr("noisy")));
  for (LayerCost& layer : costs.layers)
    for (LayerAtSize& at : layer.sizes) at.forward.spread = {2 * at.forward.median.count};
  EXPECT_THAT(plan("--cost " + cost_file(costs, "noisy.json") + " --ranks 2 --batch 16 --effort 1").out,
              HasSubstr("noisy.json is noisy: half of the measurements lie within 67 % of their median"));
}

TEST(PlanCommand, ASweepLooksAtDivisorsOfTheBatchOnly) {
  const Outcome outcome =
      plan("--cost " + cost_file(some_costs(), "sweep.json") +
           " --ranks 2 --batch 24 --effort 1 --schedule 1f1b --json --sweep " + in_folder("divisors.svg").string());
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json answer = Json::parse(outcome.out);
  const int best = answer["plans"][0]["microbatches"];
  std::vector<int> counts;
  for (const Json& point : answer["sweep"]) counts.push_back(point["microbatches"]);
  EXPECT_THAT(counts, testing::IsSupersetOf({1, 2, 3, 4, 6, 8, 12, 24}));
  const auto listed = [&](int count) {
    return std::any_of(answer["plans"].begin(), answer["plans"].end(),
                       [&](const Json& entry) { return entry["microbatches"] == count; });
  };
  for (const int count : counts) EXPECT_TRUE(24 % count == 0 || listed(count)) << count;
  EXPECT_THAT(counts, testing::Contains(best));
}

TEST(PlanCommand, AnExportKeepsTiesOnOneRankOrRefuses) {
  LayerCosts costs = some_costs();
  costs.ties = {{{0, "token.weight"}, {9, "output.weight"}, {400}}};
  const std::string cost = cost_file(costs, "tied.json");
  const auto folder = in_folder("tied_export");
  std::filesystem::remove_all(folder);
  const std::string line = "--cost " + cost + " --ranks 2 --batch 16 --effort 1 --export-pytorch " + folder.string();
  const Outcome refused = plan(line + " --schedule 1f1b");
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("no plan keeps token.weight of layer 0 and output.weight of layer 9 on one rank"));
  EXPECT_FALSE(std::filesystem::exists(folder));
  const Outcome outcome = plan(line);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("one parameter on rank 0"));
  const Json exported = Json::parse(read_file(folder / "plan.json"));
  EXPECT_EQ(exported["stages"].front()["rank"], exported["stages"].back()["rank"]);
  EXPECT_EQ(exported["ties"], Json::parse(R"([{"owner": {"layer": 0, "parameter": "token.weight"},
                                               "copy": {"layer": 9, "parameter": "output.weight"}}])"));
  EXPECT_THAT(read_file(folder / "train.py"), AllOf(HasSubstr("plan[\"ties\"]"), HasSubstr("scale_grads=False")));
}

TEST(PlanCommand, FilesHaveTheFormatOfTheirNames) {
  const std::string line = "--cost " + cost_file(some_costs(), "formats.json") + " --ranks 2 --batch 12 --effort 1 ";
  for (const std::string& output : {"-o " + in_folder("a.svg").string(), "--sweep " + in_folder("a.html").string(),
                                    "--draw " + in_folder("a.toml").string()}) {
    const Outcome outcome = plan(line + output);
    EXPECT_EQ(outcome.code, 2) << output;
    EXPECT_EQ(outcome.out, "") << output;
    EXPECT_THAT(outcome.err, HasSubstr("ends in")) << output;
  }
}

TEST(PlanCommand, BadInputIsOneLineAndExitCodeTwo) {
  const std::string cost = cost_file(some_costs(), "good.json");
  const auto zero = in_folder("zero.json");
  write_file_atomically(zero, R"({"layers": [{"name": "a", "sizes": [{"samples": 1, "forward_ms": 0,
                                  "input_backward_ms": 1, "weight_backward_ms": 1}]}]})");
  const auto negative = in_folder("negative.json");
  write_file_atomically(negative, R"({"layers": [{"name": "a", "sizes": [{"samples": 1, "forward_ms": 1,
                                      "input_backward_ms": -1, "weight_backward_ms": 1}]}]})");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--cost none.json --ranks 2 --batch 16", "cannot read none.json"},
      {"--cost " + zero.string() + " --ranks 1 --batch 1", "layers[0].sizes[0].forward_ms is 0"},
      {"--cost " + negative.string() + " --ranks 1 --batch 1", "input_backward_ms is -1"},
      {"--cost " + cost + " --ranks 11 --batch 16", "--ranks is 11; expected at most 10, the number of layers"},
      {"--cost " + cost + " --ranks 0 --batch 16", "--ranks is 0"},
      {"--cost " + cost + " --ranks 2 --batch 0", "--batch is 0"},
      {"--cost " + cost + " --ranks 2 --batch -1", "--batch is -1"},
      {"--cost " + cost + " --ranks 2 --batch 99999999999999999999", "99999999999999999999"},
      {"--cost " + cost + " --ranks 2 --batch 16 --memory 10KB", "no plan fits"},
      {"--cost " + cost + " --ranks 2 --batch 16 --memory much", "--memory is \"much\""},
      {"--cost " + cost + " --ranks 2 --batch 16 --model convnet", "is of another model, name \"gpt\""},
      {"--cost " + cost + " --ranks 2 --batch 16 --machine there", "is of another machine, name \"here\""},
      {"--cost " + cost + " --ranks 2 --batch 16 --cut 3,2", "cut \"3,2\""},
      {"--cost " + cost + " --ranks 2 --batch 16 --cut 3,5,7,9", "no schedule that fits the request"},
      {"--cost " + cost + " --ranks 2 --batch 16 --replicas 0", "--replicas is 0"},
      {"--cost " + cost + " --ranks 2 --batch 16 --effort 0", "--effort 0"},
      {"--cost " + cost + " --ranks 2 --batch 16 --top 0", "--top 0"},
      {"--cost " + cost + " --ranks 2 --batch 16 --draw step.png", "ends in .svg or .html"},
      {"--cost " + cost + " --ranks 2 --batch 16 -o no/such/plan.toml", "there is no folder"},
      {"--cost " + cost + " --ranks 2 --batch 16 --schedule dualpipe --export-pytorch /tmp/x",
       "this one keeps every stage on two, which PyTorch's runtime cannot"},
      {"--cost " + cost + " --ranks 2 --batch 12 --microbatches 5 --export-pytorch /tmp/x",
       "--microbatches 5 of --batch 12 with --export-pytorch; expected a divisor of the batch"},
      {"--cost " + cost + " --ranks 2 --batch 16 --replicas 2 --export-pytorch /tmp/x", "expected one replica"},
      {"--cost " + cost + " --ranks 2 --batch 16 --schedule zb-v --export-megatron /tmp/x",
       "--schedule zb-v with --export-megatron; expected 1f1b or interleaved-1f1b"},
      {"--cost " + cost + " --ranks 2 --batch 16 --gradient-tree 2 --export-torchtitan /tmp/x",
       "--gradient-tree with --export-torchtitan; expected no gradient tree, which torchtitan does not have"},
      {"--cost " + cost + " --ranks 3 --batch 16 --schedule chimera", "no schedule that fits"},
  };
  for (const auto& [line, expected] : cases) {
    const Outcome outcome = plan(line);
    EXPECT_EQ(outcome.code, 2) << line;
    EXPECT_EQ(outcome.out, "") << line;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr(expected), Not(HasSubstr("\n")))) << line;
  }
}

}  // namespace
}  // namespace penstock::app
