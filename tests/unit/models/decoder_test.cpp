// The bits of a decoder do not depend on its cut, and a token that is added costs nothing but its own work.
#include "penstock/models/decoder.h"

#include <algorithm>
#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <torch/optim/adamw.h>

#include "penstock/nn/freeze.h"
#include "penstock/nn/networks.h"
#include "penstock/nn/precision.h"
#include "penstock/pipeline/pipeline.h"
#include "penstock/schedule/generators.h"

namespace penstock::decoder_test {
namespace {

constexpr std::int64_t length = 12;
constexpr int microbatches = 4;

DecoderSettings everything() {
  DecoderSettings settings;
  settings.vocabulary = 61;
  settings.layers = 6;
  settings.width = 24;
  settings.heads = 4;
  settings.key_value_heads = 2;
  settings.head_size = 10;
  settings.inner_width = 20;
  settings.rotary = RotarySettings{1000, RotaryScaling::Llama3, 4, 1, 4, 16};
  settings.windows = {0, 5, 0, 3, 0, 0};
  settings.query_key_norms = settings.qkv_bias = true;
  settings.experts = ExpertSettings{5, 2, 14, true, 0.1, {1, 4}};
  settings.tied_head = true;
  settings.dropout = 0.1;
  settings.initial_deviation = 0.2;
  return settings;
}

struct Trained {
  std::vector<double> losses;
  std::vector<double> norms = {};  // of the gradients
  std::vector<std::pair<std::string, at::Tensor>> weights;
};

Trained trained(Network network, int stages, const std::string& schedule, bool recompute = false,
                Precision type = Precision::Float32, double clip = 0.5, double learning_rate = 1e-2) {
  PipelineSettings settings;
  settings.seed = 3;
  settings.clip_norm = clip;
  settings.precision = settings.weights = type;
  if (recompute) settings.recompute.assign(network.layers.size(), true);
  Pipeline pipeline(std::move(network), verify(make_schedule(schedule, stages, microbatches)), settings);
  Trained trained;
  for (std::int64_t step = 0; step < 5; ++step) {
    const at::Tensor tokens = (at::arange(8 * (length + 1)) * (step + 3) * 7).remainder(61).view({8, length + 1});
    const StepResult result =
        pipeline.step(tokens.narrow(1, 0, length), tokens.narrow(1, 1, length), step, learning_rate);
    trained.losses.push_back(result.loss);
    trained.norms.push_back(result.gradient_norm);
  }
  trained.weights = pipeline.weights();
  return trained;
}

void expect_same(const Trained& one, const Trained& other) {
  EXPECT_EQ(one.losses, other.losses);
  ASSERT_EQ(one.weights.size(), other.weights.size());
  for (std::size_t index = 0; index < one.weights.size(); ++index)
    EXPECT_TRUE(at::equal(one.weights[index].second, other.weights[index].second)) << one.weights[index].first;
}

void expect_same_on_all_cuts(const Network& network) {
  const Trained one = trained(network, 1, "1f1b");
  EXPECT_NE(one.losses.front(), one.losses.back());
  for (const int stages : {2, 3, 4}) expect_same(one, trained(network, stages, "1f1b"));
  expect_same(one, trained(network, 4, "zb-v"));
  expect_same(one, trained(network, 2, "zb-h1"));
  expect_same(one, trained(network, 2, "1f1b", /*recompute=*/true));
}

TEST(Decoder, HasTheSameBitsOnAnyCut) { expect_same_on_all_cuts(make_decoder(everything())); }

TEST(Decoder, HasTheSameBitsOnAnyCutWithItsLossInChunks) {
  DecoderSettings settings = everything();
  settings.logits_at_once = 5 * settings.vocabulary;
  expect_same_on_all_cuts(make_decoder(settings));
}

TEST(Decoder, HasTheSameBitsOnAnyCutWithFrozenLayers) {
  DecoderSettings settings = everything();
  settings.tied_head = false;
  const Network network = with_frozen_layers(make_decoder(settings), {true, true, true, false, true});
  expect_same_on_all_cuts(network);
  const Network learning = make_decoder(settings);
  const std::vector<std::string> frozen{"layers.0.", "layers.1.", "layers.2.", "layers.4."};
  for (const auto& [name, weight] : trained(network, 2, "1f1b").weights) {
    const auto layer = std::stoll(name.substr(7));
    const at::Tensor initial =
        build_layer(learning, layer, 3, at::kCPU).module().named_parameters()[name.substr(name.find('.', 7) + 1)];
    const bool stays = layer < 3 || layer == 4;
    EXPECT_EQ(at::equal(initial, weight), stays) << name;
  }
}

TEST(Freezing, SendsNoGradientBackToWhatLearnsNothing) {
  DecoderSettings settings = everything();
  settings.tied_head = false;
  settings.experts.reset();
  const auto sent_back = [&](const Network& network, const std::vector<bool>& recompute) {
    PipelineSettings pipeline_settings;
    pipeline_settings.recompute = recompute;
    Pipeline pipeline(network, verify(make_schedule("1f1b", 4, microbatches)), pipeline_settings);
    const at::Tensor tokens = at::arange(8 * (length + 1)).remainder(61).view({8, length + 1});
    pipeline.step(tokens.narrow(1, 0, length), tokens.narrow(1, 1, length), 0, 1e-2);
    std::vector<std::int64_t> bytes(4, 0);
    for (const LinkUse& link : pipeline.links())
      if (link.to < link.from) bytes[static_cast<std::size_t>(link.to)] = link.bytes.count;
    return bytes;
  };
  const std::int64_t boundary = 8 * length * settings.width * 4;
  using testing::ElementsAre;
  EXPECT_THAT(sent_back(make_decoder(settings), {}), ElementsAre(boundary, boundary, boundary, 0));
  // Stages of two layers each.
  const Network frozen = with_frozen_layers(make_decoder(settings), {true, true, true, true, true});
  EXPECT_THAT(sent_back(frozen, {}), ElementsAre(0, 0, boundary, 0));
  EXPECT_THAT(sent_back(frozen, std::vector<bool>(8, true)), ElementsAre(0, 0, boundary, 0));
}

// PyTorch's own loop with weights in bfloat16, their gradients too, and float32 copies that AdamW updates.
Trained trained_in_bfloat16(const Network& network, double learning_rate) {
  std::vector<Layer> layers;
  Trained trained;
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> masters;
  for (std::int64_t layer = 0; layer < std::ssize(network.layers); ++layer) {
    layers.push_back(build_layer(network, layer, 3, at::kCPU));
    for (auto& [name, parameter] : layers.back().module().named_parameters().pairs()) {
      const at::NoGradGuard no_graph;
      parameter.set_data(parameter.to(at::kBFloat16));
      weights.push_back(parameter);
      masters.push_back(parameter.to(at::kFloat).set_requires_grad(true));
      trained.weights.emplace_back("layers." + std::to_string(layer) + "." + name, parameter);
    }
  }
  std::vector<torch::optim::OptimizerParamGroup> groups;
  for (const at::Tensor& master : masters) {
    auto options = std::make_unique<torch::optim::AdamWOptions>(learning_rate);
    options->betas({0.9, 0.95}).weight_decay(master.dim() >= 2 ? 0.1 : 0);
    groups.emplace_back(std::vector<at::Tensor>{master}, std::move(options));
  }
  torch::optim::AdamW adamw(groups, torch::optim::AdamWOptions(learning_rate));
  for (std::int64_t step = 0; step < 5; ++step) {
    const at::Tensor tokens = (at::arange(8 * (length + 1)) * (step + 3) * 7).remainder(61).view({8, length + 1});
    double sum = 0;
    double weight = 0;
    for (int part = 0; part < microbatches; ++part) {
      const at::Tensor rows = tokens.narrow(0, std::int64_t{2} * part, 2);
      Tensors flow{rows.narrow(1, 0, length)};
      for (const Layer& layer : layers) {
        const PrecisionScope precision(Precision::BFloat16, at::kCPU);
        flow = layer.forward(flow);
      }
      const Loss loss = network.loss(flow, {rows.narrow(1, 1, length)});
      loss.sum.backward();
      sum += loss.sum.item<double>();
      weight += loss.weight;
    }
    const at::NoGradGuard no_graph;
    double squares = 0;
    for (const at::Tensor& parameter : weights)
      squares += std::pow(parameter.grad().to(at::kDouble).norm().item<double>(), 2);
    trained.norms.push_back(std::sqrt(squares) / weight);
    for (std::size_t index = 0; index < weights.size(); ++index) {
      masters[index].mutable_grad() = weights[index].grad().mul(1 / weight).to(at::kFloat);
      weights[index].mutable_grad().reset();
    }
    adamw.step();
    for (std::size_t index = 0; index < weights.size(); ++index) weights[index].copy_(masters[index]);
    trained.losses.push_back(sum / weight);
  }
  return trained;
}

TEST(Decoder, WithWeightsInBfloat16IsWhatAPlainLoopMakesOfIt) {
  DecoderSettings settings = everything();
  settings.tied_head = false;
  settings.dropout = 0;
  settings.experts.reset();
  settings.qkv_bias = false;  // those of keys change next to nothing: their gradient is rounding
  const Network network = make_decoder(settings);
  const Trained plain = trained_in_bfloat16(network, 1e-3);
  const Trained own = trained(network, 3, "1f1b", false, Precision::BFloat16, /*clip=*/0, 1e-3);
  EXPECT_EQ(own.losses.front(), plain.losses.front());
  EXPECT_NEAR(own.norms.front() / plain.norms.front(), 1, 1e-5);
  for (std::size_t step = 0; step < plain.losses.size(); ++step)
    EXPECT_NEAR(own.losses[step], plain.losses[step], 1e-3 * plain.losses[step]) << "step " << step;
  ASSERT_EQ(own.weights.size(), plain.weights.size());
  double largest = 0;
  for (std::size_t index = 0; index < own.weights.size(); ++index) {
    EXPECT_EQ(own.weights[index].first, plain.weights[index].first);
    EXPECT_EQ(own.weights[index].second.scalar_type(), at::kBFloat16);
    // Where a gradient is nearly nothing, a rounding decides its sign, and AdamW makes a whole step of it: single
    // elements may lie apart by that, but not the matrix.
    const at::Tensor apart = own.weights[index].second.to(at::kFloat) - plain.weights[index].second.to(at::kFloat);
    largest = std::max(largest, apart.norm().item<double>() / std::sqrt(static_cast<double>(apart.numel())));
    EXPECT_LE(apart.abs().max().item<double>(), 0.01) << own.weights[index].first;
  }
  RecordProperty("largest", std::to_string(largest));
  EXPECT_LT(largest, 5e-4) << "half of what one step changes";
}

TEST(Decoder, HasTheSameBitsOnAnyCutWithWeightsInBfloat16) {
  const Network network = make_decoder(everything());
  const Trained one = trained(network, 1, "1f1b", false, Precision::BFloat16);
  EXPECT_NE(one.losses.front(), one.losses.back());
  for (const int stages : {2, 3, 4}) expect_same(one, trained(network, stages, "1f1b", false, Precision::BFloat16));
  expect_same(one, trained(network, 4, "zb-v", false, Precision::BFloat16));
  expect_same(one, trained(network, 2, "1f1b", /*recompute=*/true, Precision::BFloat16));
}

TEST(Freezing, KeepsWhatIsTied) {
  const Network network = with_frozen_layers(make_decoder(everything()), {true});
  const auto head = std::ssize(network.layers) - 1;
  EXPECT_FALSE(build_layer(network, head, 0, at::kCPU).module().named_parameters()["output.weight"].requires_grad());
  EXPECT_TRUE(build_layer(network, head, 0, at::kCPU).module().named_parameters()["norm.weight"].requires_grad());
  expect_same_on_all_cuts(network);
  const Trained one = trained(network, 3, "1f1b");
  EXPECT_TRUE(at::equal(one.weights.front().second, one.weights.back().second));
  EXPECT_EQ(one.weights.front().first + " " + one.weights.back().first, "layers.0.token.weight layers.7.output.weight");
  EXPECT_TRUE(at::equal(one.weights.front().second,
                        build_layer(network, 0, 3, at::kCPU).module().named_parameters()["token.weight"]));
}

TEST(Decoder, ConfiguredAsOurGptHasItsBits) {
  for (const bool tied : {false, true}) {
    const Network gpt = make_gpt(
        {.vocabulary = 61, .layers = 4, .width = 24, .heads = 3, .context = length, .dropout = 0.1, .tied_head = tied});
    DecoderSettings settings;
    settings.vocabulary = 61;
    settings.layers = 4;
    settings.width = 24;
    settings.heads = settings.key_value_heads = 3;
    settings.head_size = 8;
    settings.inner_width = 96;
    settings.most_positions = length;
    settings.norm = NormKind::LayerNorm;
    settings.norm_epsilon = 1e-5;
    settings.rotary.reset();
    settings.qkv_bias = settings.attention_output_bias = settings.feed_forward_bias = true;
    settings.gated = false;
    settings.activation = Activation::Gelu;
    settings.tied_head = tied;
    settings.dropout = 0.1;
    std::vector<Layer> drawn;
    drawn.reserve(gpt.layers.size());
    for (std::int64_t layer = 0; layer < std::ssize(gpt.layers); ++layer)
      drawn.push_back(build_layer(gpt, layer, 3, at::kCPU));
    const Network decoder = make_decoder(settings, [&](std::int64_t layer, torch::nn::Module& module) {
      const auto of_gpt = drawn[static_cast<std::size_t>(layer)].module().named_parameters();
      const auto own = module.named_parameters();
      ASSERT_EQ(own.keys(), of_gpt.keys());
      for (const auto& parameter : own) parameter.value().copy_(of_gpt[parameter.key()]);
    });
    for (const int stages : {1, 3}) expect_same(trained(gpt, stages, "1f1b"), trained(decoder, stages, "1f1b"));
  }
}

TEST(Decoder, GoesOnFromWhatItRemembers) {
  for (const bool learned : {false, true}) {
    DecoderSettings settings = everything();
    settings.dropout = 0;
    if (learned) settings.rotary.reset();
    Pipeline pipeline(make_decoder(settings), verify(make_schedule("1f1b", 2, 1)), {});
    const at::Tensor tokens = (at::arange(length) * 13).remainder(61).view({1, length});
    const at::Tensor whole = pipeline.forward(tokens).front();
    using enum Sequences;
    std::vector<at::Tensor> parts;
    for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 4}, {4, 1}, {5, 5}, {10, 2}})
      parts.push_back(
          pipeline.forward({{{tokens.narrow(1, first, count)}, {}}}, first == 0 ? Begin : Continue).front().front());
    EXPECT_TRUE(at::allclose(at::cat(parts, 1), whole, 1e-5, 1e-5));
  }
}

}  // namespace
}  // namespace penstock::decoder_test
