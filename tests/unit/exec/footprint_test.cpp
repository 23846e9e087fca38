#include "penstock/exec/footprint.h"

#include <algorithm>
#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "penstock/nn/networks.h"

namespace penstock {
namespace {

// Keeps `copies` of its input beside input and output, and computes nothing to speak of.
class Hoarder : public torch::nn::Module {
 public:
  explicit Hoarder(int copies) : copies_(copies) { scale_ = register_parameter("scale", at::ones({1})); }
  at::Tensor forward(const at::Tensor& input) const {
    at::Tensor result = input * scale_;
    for (int copy = 0; copy < copies_; ++copy) result = result.exp();
    return result;
  }

 private:
  int copies_;
  at::Tensor scale_;
};

Network network_of(std::vector<LayerSpec> layers) {
  Network network;
  network.layers = std::move(layers);
  network.loss = [](const Tensors& outputs, const Tensors&) { return Loss{outputs.front().sum(), 1}; };
  return network;
}

TEST(Footprint, CountsWhatALayerKeepsBesideInputsAndOutputs) {
  const Network network = network_of({layer_of<Hoarder>("one", 1), layer_of<Hoarder>("three", 3)});
  const auto footprints = layer_footprints(network, {at::zeros({256})});
  // The last exponential keeps its result, which is the output.
  EXPECT_EQ(footprints[0].kept, Bytes{0});
  EXPECT_EQ(footprints[1].kept, Bytes{2048});
  EXPECT_DOUBLE_EQ(footprints[0].work, 10 * 2 * 1024);
  EXPECT_DOUBLE_EQ(footprints[1].work, 10 * 4 * 1024);
}

TEST(Footprint, CountsTheOperationsOfProducts) {
  using torch::nn::Conv2dImpl;
  using torch::nn::LinearImpl;
  const auto work_of = [](const LayerSpec& layer, const at::Tensor& input) {
    return layer_footprints(network_of({layer}), {input}).front().work;
  };
  const auto linear = layer_of<LinearImpl>("linear", torch::nn::LinearOptions(64, 32).bias(false));
  EXPECT_DOUBLE_EQ(work_of(linear, at::zeros({8, 64})), 2 * 8 * 64 * 32 + 10 * 4 * 8 * 32);
  const auto convolution = layer_of<Conv2dImpl>("conv", torch::nn::Conv2dOptions(4, 8, 3).stride(2).padding(1));
  EXPECT_GE(work_of(convolution, at::zeros({1, 4, 16, 16})), 2 * 8 * 8 * 8 * (4 * 9));
  EXPECT_LE(work_of(convolution, at::zeros({1, 4, 16, 16})),
            2 * 8 * 8 * 8 * (4 * 9) + 20 * 4 * (4 * 256 + 8 * 64 + 8 * 36));
  // Attention's own products beside the four of a block: twice the context is more than twice the work.
  const auto block_work = [](std::int64_t context) {
    return layer_footprints(make_gpt({32, 1, 32, 2, context}), {at::zeros({1, context}, at::kLong)})[1].work;
  };
  EXPECT_GT(block_work(256), 2 * block_work(128) + 2 * 2 * 2 * 128 * 128 * 32 - 1);
}

TEST(Footprint, EqualLayersAreEqualAndSamplesGrowAlike) {
  const Network network = make_gpt({32, 6, 32, 2, 16});
  const auto one = layer_footprints(network, {at::zeros({1, 16}, at::kLong)});
  const auto four = layer_footprints(network, {at::zeros({4, 16}, at::kLong)});
  for (std::size_t block = 2; block <= 6; ++block) EXPECT_EQ(one[block], one[1]);
  EXPECT_GT(one[1].kept, Bytes{0});
  EXPECT_EQ(four[1].kept.count, 4 * one[1].kept.count);
  EXPECT_LT(layer_footprints(network, {at::zeros({64, 16}, at::kLong)}, Precision::BFloat16)[1].kept.count,
            64 * one[1].kept.count);
  EXPECT_EQ(select_recomputed(one), select_recomputed(four));
}

// Holds its weights at 1, in place.
struct Clamping : torch::nn::Module {
  at::Tensor forward(const at::Tensor& input) {
    {
      const at::NoGradGuard no_graph;
      weight.clamp_max_(1);
    }
    return (input * weight).tanh();
  }
  at::Tensor weight = register_parameter("weight", at::ones({8}));
};

TEST(Footprint, ALayerThatCannotRunTwiceIsNotSelected) {
  const Network network =
      network_of({layer_of<Clamping>("clamping"), layer_of<Hoarder>("three", 3), layer_of<Hoarder>("last", 3)});
  const auto footprints = layer_footprints(network, {at::zeros({4, 8})});
  EXPECT_EQ(footprints[0].kept, Bytes{0});
  EXPECT_EQ(select_recomputed(footprints), (std::vector<bool>{false, true, false}));
}

TEST(Footprint, OneThatChangesItsBuffersCanRunTwice) {
  const Network network = network_of({layer_of<torch::nn::BatchNorm1dImpl>("norm", torch::nn::BatchNorm1dOptions(8))});
  EXPECT_GT(layer_footprints(network, {at::zeros({4, 8})})[0].kept, Bytes{0});
}

TEST(SelectRecomputed, TakesHalfOfTheBytesForTheLeastWork) {
  // 100 for 1, 300 for 2 and 400 for 8: the first two free half of 800; the last layer is never taken.
  const std::vector<LayerFootprint> footprints{{{400}, 8}, {{100}, 1}, {{0}, 0}, {{300}, 2}, {{9000}, 1}};
  EXPECT_EQ(select_recomputed(footprints), (std::vector<bool>{false, true, false, true, false}));
}

TEST(SelectRecomputed, SpreadsEqualLayersOverTheNetwork) {
  std::vector<LayerFootprint> footprints(9, {{100}, 1});
  EXPECT_EQ(select_recomputed(footprints),
            (std::vector<bool>{true, false, true, false, true, false, true, false, false}));
  // A layer that keeps next to nothing does not cost another one.
  footprints.front() = {{1}, 100};
  EXPECT_EQ(select_recomputed(footprints),
            (std::vector<bool>{false, true, false, true, false, true, false, true, false}));
  footprints.resize(16, {{100}, 1});
  footprints.front() = {{700}, 1};
  // 1,050 of 2,100: the heavy one, and four of the fourteen equal ones: no two neighbours.
  const std::vector<bool> selected = select_recomputed(footprints);
  EXPECT_EQ(std::count(selected.begin(), selected.end(), true), 5);
  for (std::size_t layer = 1; layer + 1 < selected.size(); ++layer)
    EXPECT_FALSE(selected[layer] && selected[layer + 1] && layer > 0) << layer;
}

TEST(SelectRecomputed, NothingOfWhatKeepsNothing) {
  EXPECT_EQ(select_recomputed({}), std::vector<bool>{});
  EXPECT_EQ(select_recomputed({{{0}, 1}, {{0}, 1}}), (std::vector<bool>{false, false}));
}

}  // namespace
}  // namespace penstock
