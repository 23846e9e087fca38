// Against the whole minibatch in one pass on plain libtorch: torch's own autograd, loss, clipping and optimizers.
#include <cmath>
#include <gtest/gtest.h>

#include <torch/torch.h>

#include "penstock/nn/networks.h"

#include "parity/default_dtype.h"
#include "parity/small_networks.h"

namespace penstock {
namespace {

struct PlainRun {
  std::vector<double> losses;
  std::vector<at::Tensor> weights;
};

Microbatch whole(const std::vector<Microbatch>& parts) {
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> targets;
  for (const Microbatch& part : parts) {
    inputs.push_back(part.inputs.front());
    targets.push_back(part.targets.front());
  }
  return {{at::cat(inputs)}, {at::cat(targets)}};
}

// No microbatches, no stages: the mean loss of the whole minibatch, backward, clip, step.
PlainRun train_plain(const TraceSettings& settings) {
  const Network network = small_network(settings.network, 0);
  std::vector<Layer> layers;
  std::vector<at::Tensor> decaying;
  std::vector<at::Tensor> others;
  std::vector<at::Tensor> all;
  for (std::size_t layer = 0; layer < network.layers.size(); ++layer) {
    layers.push_back(build_layer(network, static_cast<std::int64_t>(layer), 3, at::kCPU));
    for (const at::Tensor& parameter : layers.back().module().parameters()) {
      (parameter.dim() >= 2 ? decaying : others).push_back(parameter);
      all.push_back(parameter);
    }
  }
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  std::vector<torch::optim::OptimizerParamGroup> groups;
  if (settings.optimizer == "sgd") {
    const auto options = torch::optim::SGDOptions(1e-2).momentum(0.9);
    groups.emplace_back(
        decaying, std::make_unique<torch::optim::SGDOptions>(torch::optim::SGDOptions(options).weight_decay(0.1)));
    groups.emplace_back(others, std::make_unique<torch::optim::SGDOptions>(options));
    optimizer = std::make_unique<torch::optim::SGD>(groups, options);
  } else {
    const auto options = torch::optim::AdamWOptions(1e-2).betas({0.9, 0.95});
    groups.emplace_back(
        decaying, std::make_unique<torch::optim::AdamWOptions>(torch::optim::AdamWOptions(options).weight_decay(0.1)));
    groups.emplace_back(
        others, std::make_unique<torch::optim::AdamWOptions>(torch::optim::AdamWOptions(options).weight_decay(0)));
    optimizer = std::make_unique<torch::optim::AdamW>(groups, options);
  }
  PlainRun run;
  for (int step = 0; step < settings.steps; ++step) {
    const Microbatch minibatch = whole(small_minibatch(settings, step));
    optimizer->zero_grad();
    Tensors flow = minibatch.inputs;
    for (const Layer& layer : layers) flow = layer.forward(flow);
    const at::Tensor logits = flow.front();
    const at::Tensor loss = torch::nn::functional::cross_entropy(logits.reshape({-1, logits.size(-1)}),
                                                                 minibatch.targets.front().reshape(-1));
    loss.backward();
    torch::nn::utils::clip_grad_norm_(all, settings.clip);
    optimizer->step();
    run.losses.push_back(loss.item<double>());
  }
  for (const at::Tensor& parameter : all) run.weights.push_back(parameter.detach());
  return run;
}

class PlainLibtorch : public testing::TestWithParam<std::string> {
 protected:
  static void expect_agreement(const std::string& optimizer, double tolerance) {
    for (const int samples : {8, 7}) {
      SCOPED_TRACE(testing::Message() << optimizer << ", " << samples << " samples in 4 microbatches");
      TraceSettings settings;
      settings.network = GetParam();
      settings.optimizer = optimizer;
      settings.samples = samples;
      settings.stages = 3;
      settings.dropout = 0;
      const Trace pipelined = train_small(settings);
      const PlainRun plain = train_plain(settings);
      for (std::size_t step = 0; step < plain.losses.size(); ++step)
        EXPECT_NEAR(pipelined.losses[step] / plain.losses[step], 1, tolerance) << "step " << step;
      ASSERT_EQ(plain.weights.size(), pipelined.weights.size());
      for (std::size_t index = 0; index < plain.weights.size(); ++index) {
        const auto difference = (plain.weights[index] - pipelined.weights[index].second).norm().item<double>();
        const auto size = plain.weights[index].norm().item<double>();
        // Biases start at zero and are compared on the scale of one update.
        EXPECT_LE(difference, tolerance * std::max(size, 1.0)) << pipelined.weights[index].first;
      }
    }
  }
};

TEST_P(PlainLibtorch, AgreesWithinOneInAHundredThousand) { expect_agreement("sgd", 1e-5); }

// AdamW divides a gradient by what may be next to nothing, its own size: an update then follows the last bits of the
// gradient, which depend on how a processor's kernels sum. In double precision what is left of that is far below a
// mistake in the mean, the clipping or the optimizer.
TEST_P(PlainLibtorch, AgreesWithAdamWInDoublePrecision) {
  const DefaultDtype dtype(at::kDouble);
  expect_agreement("adamw", 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Networks, PlainLibtorch, testing::Values("gpt", "mlp", "convnet"));

}  // namespace
}  // namespace penstock
