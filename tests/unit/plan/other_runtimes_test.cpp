// Plans in the words of other runtimes, read back by the grammar that these have.
#include "penstock/plan/other_runtimes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <regex>
#include <sstream>
#include <toml++/toml.h>

#include "penstock/base/error.h"

namespace penstock::other_runtimes_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Plan plan_with(const std::string& schedule, int ranks, int stages_per_rank, const Cut& cut, std::int64_t layers) {
  Plan plan;
  plan.ranks = ranks;
  plan.stages_per_rank = stages_per_rank;
  plan.batch = 16;
  plan.microbatches = 8;
  plan.schedule = schedule;
  plan.layers = layers;
  plan.cut = cut;
  plan.recomputed.assign(cut.size(), false);
  return plan;
}

/// The arguments by their names; those without a value have none.
std::map<std::string, std::string> arguments_of(const std::string& text) {
  std::map<std::string, std::string> arguments;
  std::istringstream words(text);
  std::string name;
  for (std::string word; words >> word;) {
    if (word.starts_with("--"))
      arguments[name = word] = "";
    else
      arguments[name] = word;
  }
  return arguments;
}

/// Each stage's letters, with `x*n` written out.
std::vector<std::string> stages_of(const std::string& layout) {
  static const std::regex times(R"(([EtmL])\*(\d+)|([EtmL|]))");
  std::vector<std::string> stages(1);
  std::size_t read = 0;
  for (std::sregex_iterator part(layout.begin(), layout.end(), times); part != std::sregex_iterator(); ++part) {
    read += static_cast<std::size_t>(part->length());
    if ((*part)[1].matched)
      stages.back() += std::string(static_cast<std::size_t>(std::stoi((*part)[2])), (*part)[1].str().front());
    else if ((*part)[3] == "|")
      stages.emplace_back();
    else
      stages.back() += (*part)[3];
  }
  EXPECT_EQ(read, layout.size()) << layout << " is more than the grammar has";
  return stages;
}

template <class Export>
std::string refusal(const Export& write) {
  try {
    static_cast<void>(write());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::BadInput);
    return error.what();
  }
  return "nothing";
}

TEST(Megatron, TheLayoutHasEveryLayerOnceInItsStage) {
  const auto arguments = arguments_of(to_megatron(plan_with("interleaved-1f1b", 2, 2, {0, 1, 5, 6}, 9)));
  EXPECT_THAT(stages_of(arguments.at("--pipeline-model-parallel-layout")), ElementsAre("E", "tttt", "t", "ttL"));
  EXPECT_EQ(arguments.at("--num-layers"), "7");
  EXPECT_EQ(arguments.at("--pipeline-model-parallel-size"), "2");
  EXPECT_EQ(arguments.at("--micro-batch-size"), "2");
  EXPECT_EQ(arguments.at("--global-batch-size"), "16");
  EXPECT_TRUE(arguments.contains("--untie-embeddings-and-output-weights"));
  EXPECT_FALSE(arguments.contains("--recompute-granularity"));
}

TEST(Megatron, AHeadAloneAStageOfAllAndOneOfEachKind) {
  const auto layout = [](const Cut& cut, std::int64_t layers) {
    const Plan plan = plan_with("1f1b", static_cast<int>(cut.size()), 1, cut, layers);
    return arguments_of(to_megatron(plan)).at("--pipeline-model-parallel-layout");
  };
  EXPECT_EQ(layout({0, 3, 4}, 5), "Et*2|t|L");
  EXPECT_EQ(layout({0}, 4), "Et*2L");
  EXPECT_EQ(layout({0, 1}, 2), "E|L");
}

TEST(Megatron, RecomputationAndTheTiedHeadAreArguments) {
  Plan plan = plan_with("1f1b", 2, 1, {0, 2}, 5);
  plan.recomputed = {true, true};
  plan.ties = {{{0, "token.weight"}, {4, "output.weight"}, {400}}};
  EXPECT_THAT(to_megatron(plan), HasSubstr("--recompute-granularity full --recompute-method uniform"));
  EXPECT_THAT(to_megatron(plan), Not(HasSubstr("untie")));
  plan.recomputed = {true, false};
  EXPECT_THAT(refusal([&] { return to_megatron(plan); }), HasSubstr("recomputes some of its stages"));
  plan.recomputed = {false, false};
  plan.ties = {{{0, "token.weight"}, {3, "output.weight"}, {400}}};
  EXPECT_THAT(refusal([&] { return to_megatron(plan); }), HasSubstr("untie the others"));
}

TEST(Megatron, WhatItDoesNotRunIsRefused) {
  const auto refused = [](Plan plan) { return refusal([&] { return to_megatron(plan); }); };
  EXPECT_THAT(refused(plan_with("zb-h1", 2, 1, {0, 2}, 5)), HasSubstr("1f1b or interleaved-1f1b"));
  Plan plan = plan_with("interleaved-1f1b", 2, 2, {0, 1, 2, 3}, 5);
  plan.batch = plan.microbatches = 7;
  EXPECT_THAT(refused(plan), HasSubstr("a multiple of the ranks"));
  plan = plan_with("1f1b", 2, 1, {0, 2}, 5);
  plan.batch = 17;
  EXPECT_THAT(refused(plan), HasSubstr("a batch of 17 in 8 microbatches"));
  plan = plan_with("1f1b", 2, 1, {0, 2}, 5);
  plan.replicas = 2;
  EXPECT_THAT(refused(plan), HasSubstr("2 replicas"));
  EXPECT_THAT(refused(plan_with("1f1b", 1, 1, {0}, 1)), HasSubstr("one layer"));
}

toml::table torchtitan(const Plan& plan, const std::vector<std::string>& names = {}) {
  return toml::parse(to_torchtitan(plan, names, "a \"folder\"/schedule.csv"));
}

std::vector<std::string> modules_of(const toml::table& table, std::size_t stage) {
  std::vector<std::string> names;
  for (const toml::node& name : *table["parallelism"]["module_fqns_per_model_part"][stage].as_array())
    names.push_back(name.value<std::string>().value());
  return names;
}

TEST(Torchtitan, ModulesStandByTheirPlace) {
  const toml::table table = torchtitan(plan_with("1f1b", 2, 1, {0, 2}, 5));
  EXPECT_THAT(modules_of(table, 0), ElementsAre("tok_embeddings", "layers.0"));
  EXPECT_THAT(modules_of(table, 1), ElementsAre("layers.1", "layers.2", "norm", "output", "lm_head"));
  EXPECT_EQ(table["parallelism"]["pipeline_parallel_degree"].value<int>(), 2);
  EXPECT_EQ(table["parallelism"]["pipeline_parallel_microbatch_size"].value<int>(), 2);
  EXPECT_EQ(table["parallelism"]["pipeline_parallel_schedule"].value<std::string>(), "PipelineScheduleSingle");
  EXPECT_EQ(table["parallelism"]["pipeline_parallel_schedule_csv"].value<std::string>(), "a \"folder\"/schedule.csv");
  EXPECT_EQ(table["training"]["local_batch_size"].value<int>(), 16);
  EXPECT_EQ(table["activation_checkpoint"]["mode"].value<std::string>(), "none");
}

TEST(Torchtitan, NamesThatAreModulesAreTaken) {
  const std::vector<std::string> names{"tok_embeddings+layers.0", "layers.1", "norm+output"};
  const toml::table table = torchtitan(plan_with("1f1b", 2, 1, {0, 1}, 3), names);
  EXPECT_THAT(modules_of(table, 0), ElementsAre("tok_embeddings", "layers.0"));
  EXPECT_THAT(modules_of(table, 1), ElementsAre("layers.1", "norm", "output"));
}

TEST(Torchtitan, TheSchedulesNameSaysWhichStagesARankBuilds) {
  const auto name = [](const std::string& schedule, int stages_per_rank) {
    return torchtitan(
               plan_with(schedule, 2, stages_per_rank, {0, 1, 2, 3}, 6))["parallelism"]["pipeline_parallel_schedule"]
        .value<std::string>();
  };
  EXPECT_EQ(name("zb-v", 2), "ZBVZeroBubble");
  EXPECT_EQ(name("interleaved-1f1b", 2), "PipelineScheduleMulti");
  Plan wave = plan_with("hanayo", 2, 4, {0, 1, 2, 3, 4, 5, 6, 7}, 8);
  EXPECT_THAT(refusal([&] { return to_torchtitan(wave, {}, "s.csv"); }), HasSubstr("a loop or a V"));
}

TEST(Torchtitan, WhatItDoesNotRunIsRefused) {
  Plan plan = plan_with("1f1b", 2, 1, {0, 2}, 5);
  plan.ties = {{{0, "token.weight"}, {4, "output.weight"}, {400}}};
  EXPECT_THAT(refusal([&] { return to_torchtitan(plan, {}, ""); }), HasSubstr("no tied parameters"));
  plan.ties = {};
  EXPECT_THAT(refusal([&] { return to_torchtitan(plan, {"one"}, ""); }), HasSubstr("5, one for each layer"));
}

}  // namespace
}  // namespace penstock::other_runtimes_test
