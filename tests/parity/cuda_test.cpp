// Several stages on one device that is not the host: the same bits as one stage there.
#include <algorithm>
#include <gtest/gtest.h>
#include <string>

#include <ATen/Context.h>

#include "penstock/schedule/generators.h"

#include "parity/small_networks.h"

namespace penstock {
namespace {

class Cuda : public testing::TestWithParam<std::string> {  // schedule
 protected:
  void SetUp() override {
    if (!at::globalContext().hasCUDA()) GTEST_SKIP() << "there is no CUDA device";
  }
};

TEST_P(Cuda, SeveralStagesOnOneDeviceHaveTheNumbersOfOne) {
  for (const char* network : {"gpt", "skips", "mlp"}) {
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(testing::Message() << network << (recompute ? ", recomputed and offloaded" : ""));
      TraceSettings one;
      one.network = network;
      one.steps = 3;
      one.devices = {at::Device("cuda:0")};
      TraceSettings cut = one;
      if (recompute) cut.recompute = std::vector<bool>(8, true);
      cut.offload = recompute;
      expect_same_bits(train_small(one), train_small(cut, make_schedule(GetParam(), 2, cut.microbatches)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, Cuda, testing::Values("gpipe", "1f1b", "zb-h1", "zb-v"), [](const auto& instance) {
  std::string name = instance.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace penstock
