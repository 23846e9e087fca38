// Ranks on devices that are not the host: what is ordered by streams and events, on a device that checks it.
#include "penstock/exec/device.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "penstock/schedule/generators.h"

#include "parity/checked_device.h"
#include "parity/small_networks.h"

namespace penstock {
namespace {

at::Device device(int index) { return {checked_device, static_cast<at::DeviceIndex>(index)}; }

class OnDevice : public testing::Test {
 protected:
  void SetUp() override {
    register_checked_device();
    static_cast<void>(take_races());
  }
};

TEST_F(OnDevice, TheCheckSeesWhatIsNotOrdered) {
  const c10::impl::VirtualGuardImpl guard(checked_device);
  const at::Tensor made = at::ones({4}).to(device(0));
  static_cast<void>(made + 1);  // enqueued
  {
    const at::Tensor late = made * 2;
    const c10::StreamGuard other(guard.getStreamFromGlobalPool(device(0)));
    static_cast<void>(late + 1);
  }
  EXPECT_FALSE(take_races().empty());
}

TEST_F(OnDevice, WhatARankBringsIsThereBeforeItComputes) {
  for (const int from : {0, 1}) {
    SCOPED_TRACE(from);
    DeviceLane sender(device(from));
    DeviceLane receiver(device(0));
    const int copies = checked_counts().copies_between;
    std::vector<at::Tensor> message;
    std::optional<c10::Event> ready;
    sender.enter({});
    message = {at::ones({4}).to(device(from)) * 3, at::Tensor(), at::ones({2})};
    ready.emplace(sender.mark());
    receiver.enter({});
    const int waits = checked_counts().host_waits;
    const auto here = receiver.bring(std::exchange(message, {}), *ready);
    const at::Tensor result = here[0] + 1;
    EXPECT_EQ(checked_counts().host_waits, waits);
    EXPECT_EQ(checked_counts().copies_between - copies, from);
    EXPECT_FALSE(here[1].defined());
    EXPECT_TRUE(here[2].device().is_cpu());
    EXPECT_EQ(result.device(), device(0));
    EXPECT_TRUE(at::equal(result.cpu(), at::full({4}, 4.0)));
  }
  EXPECT_EQ(take_races(), std::vector<std::string>());
}

TEST_F(OnDevice, TheHostWaitsForWhatItIsSent) {
  DeviceLane sender(device(0));
  DeviceLane receiver(at::kCPU);
  sender.enter({});
  const at::Tensor made = at::ones({4}).to(device(0)) * 3;
  const c10::Event ready = sender.mark();
  const int waits = checked_counts().host_waits;
  static_cast<void>(receiver.bring({made}, ready));
  EXPECT_EQ(checked_counts().host_waits, waits + 1);
}

TEST_F(OnDevice, StampsAreTheDevicesOwn) {
  class Still final : public Clock {
    [[nodiscard]] Milliseconds now() const override { return {1000}; }
  };
  const Still clock;
  DeviceLane lane(device(0));
  lane.enter({});
  const at::Tensor work = at::ones({4}).to(device(0));
  Stamps stamps(device(0), clock);
  stamps.begin();
  std::vector<Event> events;
  for (const int kernels : {1, 3}) {
    const Milliseconds start = stamps.now();
    for (int kernel = 0; kernel < kernels; ++kernel) work.add_(1);
    events.push_back({{}, start, stamps.now()});
  }
  stamps.resolve(events);
  EXPECT_EQ(events[0].start, Milliseconds{1000});
  EXPECT_GT(events[0].end, events[0].start);
  EXPECT_EQ(events[1].start, events[0].end);
  EXPECT_DOUBLE_EQ((events[1].end - events[1].start).count, 3 * (events[0].end - events[0].start).count);
  Stamps on_host(at::kCPU, clock);
  EXPECT_EQ(on_host.now(), Milliseconds{1000});
}

TEST_F(OnDevice, MemoryIsTheAllocators) {
  EXPECT_EQ(device_memory(at::kCPU), std::nullopt);
  const DeviceMemory before = device_memory(device(1)).value();
  {
    const at::Tensor large = at::empty({1000}, at::TensorOptions(device(1)));
  }
  EXPECT_EQ(device_memory(device(1))->held, before.held);
  EXPECT_GE(device_memory(device(1))->peak, before.held + Bytes{4000});
  reset_device_peak(device(1));
  reset_device_peak(at::kCPU);
  EXPECT_EQ(device_memory(device(1))->peak, before.held);

  PipelineSettings settings;
  settings.devices = {device(0), device(1)};
  Pipeline pipeline(small_network("mlp", 0), verify(one_f_one_b_schedule(2, 4)), settings);
  TraceSettings minibatch;
  minibatch.network = "mlp";
  pipeline.begin_accounting();
  const StepResult result = pipeline.step(small_minibatch(minibatch, 0), {});
  for (const StageReport& stage : pipeline.report()) {
    EXPECT_EQ(stage.peak_memory, device_memory(device(stage.rank))->peak);
    EXPECT_GT(peak_bytes(result.timeline, {stage.rank}), Bytes{0});
    EXPECT_LT(peak_bytes(result.timeline, {stage.rank}), stage.peak_memory);
  }
}

TEST_F(OnDevice, WhatIsSentBetweenDevicesIsNoMemoryOfTheHosts) {
  PipelineSettings settings;
  settings.devices = {device(0), device(1)};
  settings.threads_per_rank = 1;
  settings.memory_limit = {65536};
  Pipeline pipeline(small_network("mlp", 0), verify(one_f_one_b_schedule(2, 4)), settings);
  TraceSettings drawn;
  drawn.network = "mlp";
  drawn.samples = 64;
  const std::vector<Microbatch> minibatch = small_minibatch(drawn, 0);
  for (int step = 0; step < 40; ++step) pipeline.step(minibatch, {step, 1e-3, false});
}

// The caller's thread has streams of its own.
TEST_F(OnDevice, WhatTheCallerHasEnqueuedIsThereAndWhatItGetsToo) {
  PipelineSettings settings;
  settings.devices = {device(0), device(1)};
  Pipeline pipeline(small_network("mlp", 0), verify(one_f_one_b_schedule(2, 4)), settings);
  TraceSettings drawn;
  drawn.network = "mlp";
  std::vector<Microbatch> minibatch = small_minibatch(drawn, 0);
  for (Microbatch& microbatch : minibatch)
    for (Tensors* tensors : {&microbatch.inputs, &microbatch.targets})
      for (at::Tensor& tensor : *tensors) tensor = tensor.to(device(0)) * 1;
  const StepResult result = pipeline.step(minibatch, {.keep_outputs = true});
  for (const Tensors& outputs : result.outputs) static_cast<void>(outputs.front() * 2);
  // Kept until the end: what the caller lets go of is used again by ranks that have waited for the caller.
  const std::vector<Tensors> forward = pipeline.forward(minibatch);
  for (const Tensors& outputs : forward) static_cast<void>(outputs.front() * 2);
  EXPECT_EQ(take_races(), std::vector<std::string>());
}

TEST_F(OnDevice, TheHostWaitsOnceAStep) {
  constexpr int ranks = 2;
  constexpr int steps = 6;
  const auto waits_of = [](int microbatches, double clip, bool post_validation) {
    PipelineSettings settings;
    settings.clip_norm = clip;
    settings.post_validation = post_validation;
    settings.devices = {device(0), device(1)};
    Network network = small_network("mlp", 0);
    network.loss = squared_error;
    Pipeline pipeline(std::move(network), verify(one_f_one_b_schedule(2, microbatches)), settings);
    const at::Tensor input = at::ones({microbatches, 20}).to(device(0));
    const at::Tensor target = at::ones({microbatches, 5}).to(device(1));
    // The first finds where the device's time stands.
    pipeline.step(input, target, 0, 1e-3);
    static_cast<void>(pipeline.peak_memory());
    const int before = checked_counts().host_waits;
    std::vector<StepHandle> handles;
    for (int step = 1; step <= steps; ++step) handles.push_back(pipeline.submit(input, target, step, 1e-3));
    for (StepHandle& handle : handles) static_cast<void>(handle.wait());
    return checked_counts().host_waits - before;
  };
  // All losses are read together with the norms, after the last action.
  for (const int microbatches : {4, 8})
    for (const bool post_validation : {false, true})
      for (const double clip : {0.0, 1e9}) EXPECT_EQ(waits_of(microbatches, clip, post_validation), steps * ranks);
}

TEST_F(OnDevice, AMinibatchIsOnItsWayBeforeItsStep) {
  PipelineSettings settings;
  settings.devices = {device(0), device(1)};
  Pipeline pipeline(small_network("mlp", 0), verify(one_f_one_b_schedule(2, 4)), settings);
  TraceSettings drawn;
  drawn.network = "mlp";
  const std::vector<Microbatch> minibatch = small_minibatch(drawn, 0);
  const StepResult of_host = pipeline.step(minibatch, {.step = 0});
  EXPECT_TRUE(minibatch.front().inputs.front().is_cpu()) << "the caller's own stay where they are";
  Pipeline again(small_network("mlp", 0), verify(one_f_one_b_schedule(2, 4)), settings);
  std::vector<Microbatch> moved = minibatch;
  for (Microbatch& microbatch : moved) {
    for (at::Tensor& tensor : microbatch.inputs) tensor = tensor.to(device(0));
    for (at::Tensor& tensor : microbatch.targets) tensor = tensor.to(device(1));
  }
  EXPECT_EQ(again.step(moved, {.step = 0}).loss, of_host.loss);
  EXPECT_EQ(take_races(), std::vector<std::string>());
}

class Devices : public testing::TestWithParam<std::string> {  // schedule
 protected:
  void SetUp() override { register_checked_device(); }

  static void compare(const TraceSettings& one, const std::vector<at::Device>& devices) {
    // Two copies of a stage add in another order than one.
    const Trace expected =
        GetParam() == "chimera" ? train_small(one, make_schedule(GetParam(), 2, one.microbatches)) : train_small(one);
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(testing::Message() << one.network << " on " << testing::PrintToString(devices.size())
                                      << (recompute ? ", recomputed and offloaded" : ""));
      TraceSettings cut = one;
      cut.devices = devices;
      if (recompute) cut.recompute = std::vector<bool>(8, true);
      cut.offload = recompute;
      static_cast<void>(take_races());
      const Trace got = train_small(cut, make_schedule(GetParam(), 2, cut.microbatches));
      EXPECT_EQ(take_races(), std::vector<std::string>());
      expect_same_bits(expected, got);
    }
  }
};

TraceSettings few_steps(const char* network) {
  TraceSettings settings;
  settings.network = network;
  settings.steps = 3;
  settings.dropout = 0;  // drawn by a generator of the device's, which it has not
  return settings;
}

TEST_P(Devices, RanksOnOneAndOnTwoHaveTheNumbersOfOneStageInOrder) {
  for (const char* network : {"mlp", "skips", "gpt", "tied gpt"}) {
    TraceSettings one = few_steps(network);
    one.devices = {device(0)};
    compare(one, {device(0)});
    const int copies = checked_counts().copies_between;
    compare(one, {device(0), device(1)});
    EXPECT_GT(checked_counts().copies_between, copies);
  }
}

TEST_P(Devices, TheHostIsADeviceAmongThem) {
  for (const char* network : {"mlp", "skips"}) {
    compare(few_steps(network), {at::kCPU, device(0)});
    compare(few_steps(network), {device(1), at::kCPU});
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, Devices, testing::Values("gpipe", "1f1b", "zb-h1", "zb-v", "chimera"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace penstock
