// Several stages on one CUDA device: the same bits as one stage there, every schedule, and what is measured there.
// What is ordered by events is checked on a device of the tests' own in device_test.cpp; this is the real one.
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <string>

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include "penstock/exec/device.h"
#include "penstock/schedule/generators.h"

#include "parity/small_networks.h"

namespace penstock {
namespace {

const std::vector<at::Device>& one_device() {
  static const std::vector<at::Device> devices{at::Device("cuda:0")};
  return devices;
}

TraceSettings on_device(const std::string& network) {
  TraceSettings settings;
  settings.network = network;
  settings.steps = 3;
  settings.samples = 9;
  settings.devices = one_device();
  return settings;
}

struct Change {
  const char* name;
  void (*apply)(TraceSettings&);
};

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "there is no CUDA device";
    choose_repeatable_algorithms();
  }
};

class CudaSchedules : public Cuda, public testing::WithParamInterface<std::string_view> {
 protected:
  [[nodiscard]] static ScheduleFamily family() {
    const auto families = schedule_families();
    return *std::find_if(families.begin(), families.end(), [](const auto& f) { return f.name == GetParam(); });
  }
  static void compare(TraceSettings one, TraceSettings cut) {
    const bool two_copies = family().bidirectional;
    // AdamW divides by what may be next to nothing, which makes much of the last bits.
    if (two_copies) one.optimizer = cut.optimizer = "sgd";
    const int ranks = family().stages_per_rank == 1 ? 4 : 2;
    const Trace expected = train_small(one);
    const Trace got = train_small(cut, make_schedule(GetParam(), ranks, cut.microbatches));
    if (two_copies)
      expect_close(expected, got);
    else
      expect_same_bits(expected, got);
  }
};

TEST_P(CudaSchedules, GiveTheNumbersOfOneStage) {
  for (const char* network : {"gpt", "tied gpt", "skips", "mlp", "convnet"}) {
    SCOPED_TRACE(network);
    compare(on_device(network), on_device(network));
  }
}

TEST_P(CudaSchedules, GiveThemWithEverythingSwitchedOnOneByOne) {
  const std::vector<Change> changes{
      {"fewer microbatches than stages", [](TraceSettings& settings) { settings.microbatches = 2; }},
      {"lengths", [](TraceSettings& settings) { settings.lengths = true; }},
      {"masks", [](TraceSettings& settings) { settings.masked = true; }},
      {"bf16", [](TraceSettings& settings) { settings.precision = Precision::BFloat16; }},
      {"fp16", [](TraceSettings& settings) { settings.precision = Precision::Float16; }},
  };
  for (const Change& change : changes) {
    SCOPED_TRACE(change.name);
    TraceSettings settings = on_device("gpt");
    change.apply(settings);
    compare(settings, settings);
  }
}

TEST_P(CudaSchedules, GiveThemRecomputedAndOffloaded) {
  for (const char* network : {"gpt", "skips", "batch norm"}) {
    SCOPED_TRACE(network);
    TraceSettings cut = on_device(network);
    cut.recompute = {true, false, false, true, true, false, true, false};
    compare(on_device(network), cut);
    cut.offload = true;
    compare(on_device(network), cut);
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, CudaSchedules, testing::ValuesIn(trained_families()), [](const auto& instance) {
  std::string name(instance.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_F(Cuda, TheOptimizerThatDoesNotWaitHasTheBitsOfTheOneThatDoes) {
  for (const double clip : {0.05, 100.0}) {
    TraceSettings waiting = on_device("gpt");
    waiting.stages = 4;
    waiting.clip = clip;
    TraceSettings hoping = waiting;
    hoping.post_validation = true;
    expect_same_bits(train_small(waiting), train_small(hoping));
  }
}

TEST_F(Cuda, ReplicasHaveTheNumbersOfOne) {
  for (const bool shard : {false, true}) {
    TraceSettings one = on_device("gpt");
    one.samples = 8;
    one.optimizer = "sgd";
    TraceSettings two = one;
    two.stages = 2;
    two.replicas = 2;
    two.shard = shard;
    expect_close(train_small(one), train_small(two));
  }
}

// Not to the bit: other kernels add in another order.
TEST_F(Cuda, TheNumbersAreTheHostsWithinRounding) {
  for (const char* network : {"gpt", "tied gpt", "skips", "mlp"}) {
    SCOPED_TRACE(network);
    TraceSettings there = on_device(network);
    there.dropout = 0;  // drawn by other generators
    there.optimizer = "sgd";
    TraceSettings here = there;
    here.devices.clear();
    const Trace expected = train_small(here);
    const Trace got = train_small(there);
    for (std::size_t step = 0; step < expected.losses.size(); ++step)
      EXPECT_NEAR(got.losses[step], expected.losses[step], 1e-5 * std::abs(expected.losses[step]));
  }
}

TEST_F(Cuda, MemoryIsTheAllocatorsAndTimesAreTheDevices) {
  PipelineSettings settings;
  settings.devices = one_device();
  Pipeline pipeline(small_network("gpt", 0.1), verify(one_f_one_b_schedule(2, 8)), settings);
  TraceSettings drawn;
  drawn.microbatches = 8;
  static_cast<void>(pipeline.step(small_minibatch(drawn, 0), {}));
  pipeline.begin_accounting();
  const StepResult result = pipeline.step(small_minibatch(drawn, 1), {1, 1e-3, false});
  const Bytes peak = device_memory(one_device().front()).value().peak;
  const Timeline computed = compute_actions(result.timeline);
  for (const StageReport& stage : pipeline.report()) EXPECT_EQ(stage.peak_memory, peak);
  for (std::int32_t rank = 0; rank < 2; ++rank) {
    // Of both together nobody knows whose it is.
    EXPECT_TRUE(result.timeline.memory[static_cast<std::size_t>(rank)].empty());
    Milliseconds last{0};
    for (const Event& event : computed.ranks[static_cast<std::size_t>(rank)]) {
      EXPECT_GE(event.start, last);
      EXPECT_GT(event.end, event.start);
      last = event.end;
    }
  }
}

}  // namespace
}  // namespace penstock
