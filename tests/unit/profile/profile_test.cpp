#include "penstock/profile/profile.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include <torch/torch.h>

#include "penstock/base/error.h"
#include "penstock/nn/networks.h"

namespace penstock {
namespace {

using testing::HasSubstr;

ProfileSettings quick(std::vector<std::int64_t> sizes, int ranks = 2) {
  ProfileSettings settings;
  settings.ranks = ranks;
  settings.sizes = std::move(sizes);
  settings.budget = {0};
  return settings;
}

ProfileSettings for_mlp(std::vector<std::int64_t> sizes) {
  ProfileSettings settings = quick(std::move(sizes));
  settings.microbatch = [](std::int64_t samples) {
    return Microbatch{{at::rand({samples, 1, 4, 4})}, {at::randint(10, {samples}, at::kLong)}};
  };
  return settings;
}

TEST(Profile, LayersAlikeAreMeasuredOnceAndCountedAsTheyAre) {
  Network network = make_mlp({.inputs = 16, .layers = 4, .width = 8, .classes = 10});
  std::atomic<int> built = 0;
  for (LayerSpec& layer : network.layers)
    layer.build = [&built, build = layer.build] {
      ++built;
      return build();
    };
  const LayerCosts costs = profile_layers(network, for_mlp({1, 3, 4}));
  validate(costs);
  ASSERT_TRUE(costs.measured);
  EXPECT_EQ(costs.measured->rounds, 3) << "without a budget the fewest";
  EXPECT_EQ(built, 2 * ((1 + 3) * 3 + 3)) << "the first, one of the three alike, and the head, on each of two ranks, "
                                             "and in each round the heaviest once more";
  ASSERT_EQ(costs.layers.size(), 5);
  EXPECT_EQ(costs.layers[0].name, "0 hidden");
  EXPECT_EQ(costs.layers[1].like, std::nullopt);
  EXPECT_EQ(costs.layers[2].like, 1U);
  EXPECT_EQ(costs.layers[3].like, 1U);
  EXPECT_EQ(costs.layers[0].parameter.count, 4 * (16 * 8 + 8));
  EXPECT_EQ(costs.layers[1].parameter.count, 4 * (8 * 8 + 8));
  EXPECT_EQ(costs.layers[1].gradient, costs.layers[1].parameter);
  const LayerAtSize& hidden = costs.layers[1].sizes[1];
  EXPECT_EQ(hidden.samples, 3);
  EXPECT_EQ(hidden.boundary.count, 4 * 8 * 3);
  EXPECT_EQ(hidden.activation.count, 4 * 8 * 3) << "its input; its output, which ReLU keeps, is the next one's";
  EXPECT_EQ(hidden.kept_output.count, 4 * 8 * 3);
  EXPECT_EQ(costs.layers[0].sizes[1].activation.count, 0) << "the network's input is the caller's";
  EXPECT_EQ(costs.layers[4].sizes[1].boundary.count, 0) << "nothing crosses behind the loss";
  for (const LayerCost& layer : costs.layers)
    for (const LayerAtSize& size : layer.sizes) {
      EXPECT_GT(size.forward.median.count, 0);
      EXPECT_GT(size.backward->median.count, 0);
      EXPECT_GT(size.weight_backward.median.count, 0);
    }
}

// A layer that takes its time.
struct Waits : torch::nn::Module {
  explicit Waits(std::function<double()> milliseconds) : next(std::move(milliseconds)) {}
  at::Tensor forward(const at::Tensor& input) {
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(next()));
    return input * weight;
  }
  std::function<double()> next;
  at::Tensor weight = register_parameter("weight", torch::ones({1}));
};

ProfileSettings for_waits() {
  ProfileSettings settings = quick({1}, 1);
  settings.microbatch = [](std::int64_t samples) {
    return Microbatch{{at::ones({samples, 1})}, {at::ones({samples, 1})}};
  };
  return settings;
}

TEST(Profile, RoundsGoOverAllLayersUntilTheMedianIsKnown) {
  std::string order;
  const auto network_of = [&order](const std::function<double(int layer)>& milliseconds) {
    Network network;
    for (const int layer : {0, 1})
      network.layers.push_back({"waits", "", [&order, milliseconds, layer] {
                                  if (order.empty() || order.back() != '0' + layer) order += std::to_string(layer);
                                  return Layer(
                                      std::make_shared<Waits>([milliseconds, layer] { return milliseconds(layer); }));
                                }});
    network.loss = squared_error;
    return network;
  };
  ProfileSettings settings = for_waits();
  settings.budget = {20};
  // Slower from pass to pass, so that no two rounds agree, whatever else the machine does.
  double slower = 0.5;
  const LayerCosts noisy = profile_layers(network_of([&](int) { return slower *= 1.1; }), settings);
  EXPECT_EQ(order.substr(0, 8), "01010101") << "a survey and at least three rounds, each over both layers";
  EXPECT_GT(noisy.measured->spread, 0.02);
  EXPECT_GE(noisy.measured->rounds, 3);
}

Network two_that_wait(const std::function<double()>& milliseconds) {
  Network network;
  for (int layer = 0; layer < 2; ++layer)
    network.layers.push_back({"waits", "", [milliseconds] { return Layer(std::make_shared<Waits>(milliseconds)); }});
  network.loss = squared_error;
  return network;
}

// A pass takes twice as long if it begins while another rank is in one.
TEST(Profile, MeasuresHowMuchRanksTakeFromEachOther) {
  std::atomic<int> inside = 0;
  ProfileSettings settings = for_waits();
  settings.ranks = 2;
  const auto one_machine = [&inside] {
    const int computing = ++inside;
    std::this_thread::sleep_for(computing * std::chrono::milliseconds(3));
    --inside;
    return 0.0;
  };
  EXPECT_GT(profile_layers(two_that_wait(one_machine), settings).contention, 1.1);
  settings.ranks = 1;
  EXPECT_EQ(profile_layers(two_that_wait(one_machine), settings).contention, 1) << "one rank has nobody beside it";
}

TEST(Profile, AMessageTakesAtLeastWhatRanksWaitForEachOther) {
  std::mutex mutex;
  std::optional<std::thread::id> slow;
  ProfileSettings settings = for_waits();
  settings.ranks = 2;
  const LayerCosts costs = profile_layers(two_that_wait([&] {
                                            const std::scoped_lock lock(mutex);
                                            if (!slow) slow = std::this_thread::get_id();
                                            return *slow == std::this_thread::get_id() ? 4.0 : 0.0;
                                          }),
                                          settings);
  // Two forwards before each meeting: one rank waits 8 ms, the other nothing.
  EXPECT_GT(costs.default_link.latency.count, 1);
}

// Most passes are short, and a step is their sum.
TEST(Profile, PassesThatAreRarelyLongCountWithTheirMean) {
  ProfileSettings settings = for_waits();
  settings.budget = {400};
  int passes = 0;
  const LayerCosts costs =
      profile_layers(two_that_wait([&passes] { return ++passes % 4 == 0 ? 12.0 : 0.0; }), settings);
  EXPECT_GT(costs.layers[0].sizes[0].forward.median.count, 1);
}

TEST(Profile, EqualKindsWithOtherShapesAreNotAlike) {
  const Network network =
      make_convnet({.channels = 1, .rows = 16, .columns = 16, .layers = 5, .width = 8, .groups = 1});
  ProfileSettings settings = quick({2}, 1);
  settings.microbatch = [](std::int64_t samples) {
    return Microbatch{{at::rand({samples, 1, 16, 16})}, {at::randint(10, {samples}, at::kLong)}};
  };
  const LayerCosts costs = profile_layers(network, settings);
  // Stem, 16 to 16, 16 to 8, 8 to 8, 8 to 4, 4 to 4, head.
  ASSERT_EQ(costs.layers.size(), 7);
  for (const LayerCost& layer : costs.layers) EXPECT_EQ(layer.like, std::nullopt) << layer.name;
  EXPECT_EQ(costs.layers[1].sizes[0].boundary.count, 4 * costs.layers[2].sizes[0].boundary.count);
}

TEST(Profile, TheOptimizersStateIsCountedAndItsUpdateTimed) {
  const Network network = make_mlp({.inputs = 16, .layers = 1, .width = 8, .classes = 10});
  ProfileSettings settings = for_mlp({2});
  for (const LayerCost& layer : profile_layers(network, settings).layers) {
    EXPECT_EQ(layer.optimizer.count, 0);
    EXPECT_EQ(layer.update.count, 0);
  }
  for (const OptimizerKind kind : {OptimizerKind::Sgd, OptimizerKind::AdamW}) {
    settings.optimizer = OptimizerSettings{.kind = kind};
    for (const LayerCost& layer : profile_layers(network, settings).layers) {
      // One moment or two, each of a parameter's size.
      const std::int64_t moments = settings.optimizer->kind == OptimizerKind::Sgd ? 1 : 2;
      EXPECT_EQ(layer.optimizer.count, moments * layer.parameter.count) << layer.name;
      EXPECT_GT(layer.update.count, 0);
    }
  }
}

TEST(Profile, MeasuresNetworksWithSkips) {
  Network network;
  for (int layer = 0; layer < 3; ++layer)
    network.layers.push_back(layer_of<torch::nn::LinearImpl>("linear", torch::nn::LinearOptions(4, 4)));
  struct Sum : torch::nn::Module {
    Sum() : weight(register_parameter("weight", torch::ones({4, 4}))) {}
    Tensors forward(const Tensors& inputs) { return {(inputs[0] + inputs[1]).mm(weight)}; }
    at::Tensor weight;
  };
  network.layers.push_back(layer_of<Sum>("sum"));
  network.skips = {{.from = 0, .to = 3}};
  network.loss = squared_error;
  ProfileSettings settings = quick({2});
  settings.microbatch = [](std::int64_t samples) {
    return Microbatch{{at::rand({samples, 4})}, {at::rand({samples, 4})}};
  };
  const LayerCosts costs = profile_layers(network, settings);
  EXPECT_EQ(costs.layers[1].sizes[0].boundary.count, 2 * 4 * 4 * 2) << "the chain and the skip";
  EXPECT_EQ(costs.layers[2].sizes[0].boundary.count, 2 * 4 * 4 * 2);
}

TEST(Profile, ALayerThatThrowsOnOneRankStopsAll) {
  Network network = make_mlp({.inputs = 16, .layers = 2, .width = 8, .classes = 10});
  const auto built = std::make_shared<std::atomic<int>>(0);
  network.layers[1].build = [built, build = network.layers[1].build] {
    if (++*built == 2) throw std::runtime_error("one too many");
    return build();
  };
  EXPECT_THAT([&] { static_cast<void>(profile_layers(network, for_mlp({1, 2}))); },
              testing::ThrowsMessage<std::exception>(HasSubstr("one too many")));
}

// Wherever the other ranks are by then: at a meeting, at work, or asleep.
TEST(Profile, AnyPassThatThrowsStopsAll) {
  ProfileSettings settings = for_waits();
  settings.ranks = 3;
  constexpr int apart = 23;
  bool ended = false;
  for (int failing = 1; !ended; failing += apart) {
    std::atomic<int> passes = 0;
    const Network network = two_that_wait([&]() -> double {
      if (++passes == failing) throw std::runtime_error("this pass");
      return 0;
    });
    try {
      static_cast<void>(profile_layers(network, settings));
      ended = true;
      EXPECT_LT(passes, failing);
    } catch (const std::exception& failure) {
      EXPECT_THAT(failure.what(), HasSubstr("this pass"));
    }
  }
}

TEST(Profile, RefusesSettingsOutOfRange) {
  const Network network = make_mlp({.inputs = 16, .layers = 1, .width = 8, .classes = 10});
  for (const std::vector<std::int64_t>& sizes : std::vector<std::vector<std::int64_t>>{{}, {0}, {2, 2}, {4, 1}})
    EXPECT_THROW(static_cast<void>(profile_layers(network, for_mlp(sizes))), Error);
  ProfileSettings none = for_mlp({1});
  none.ranks = 0;
  EXPECT_THROW(static_cast<void>(profile_layers(network, none)), Error);
}

TEST(Profile, ALinkBetweenThreadsIsAsFastForLargeMessages) {
  EXPECT_EQ(profile_link(quick({1}, 1)), LinkCost{});
  const LinkCost link = profile_link(quick({1}, 2));
  EXPECT_GT(link.latency.count, 0);
}

TEST(Profile, DescribesTheMachine) {
  const Description machine = describe_machine(quick({1}, 3));
  EXPECT_EQ(machine.at("ranks"), "3");
  EXPECT_EQ(machine.at("devices"), "cpu");
  EXPECT_FALSE(machine.at("processor").empty());
}

}  // namespace
}  // namespace penstock
