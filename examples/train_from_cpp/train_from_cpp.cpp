// Any torch module becomes a layer, any function a loss: a network of one's own on three stages.
#include <iostream>

#include <torch/torch.h>

#include <penstock/schedule/generators.h>
#include <penstock/train/audit.h>
#include <penstock/train/pipeline.h>

struct Hidden : torch::nn::Module {
  Hidden(int inputs, int outputs) { linear = register_module("linear", torch::nn::Linear(inputs, outputs)); }
  torch::Tensor forward(const torch::Tensor& input) { return torch::tanh(linear(input)); }
  torch::nn::Linear linear{nullptr};
};

int main() {
  penstock::Network network;
  network.layers.push_back(penstock::layer_of<Hidden>("first", 2, 64));
  for (int layer = 0; layer < 4; ++layer) network.layers.push_back(penstock::layer_of<Hidden>("hidden", 64, 64));
  network.layers.push_back(penstock::layer_of<torch::nn::LinearImpl>("head", torch::nn::LinearOptions(64, 1)));
  network.loss = [](const penstock::Tensors& outputs, const penstock::Tensors& targets) {
    return penstock::Loss{(outputs[0] - targets[0]).square().sum(), static_cast<double>(outputs[0].size(0))};
  };

  // Once, for a network of one's own: whether it has the same bits however it is cut, and what its layers do.
  std::cout << to_string(
      penstock::audit(network, penstock::Minibatch{{{torch::rand({6, 2})}}, {{torch::rand({6, 1})}}}));

  const auto schedule = penstock::verify(penstock::one_f_one_b_schedule(/*ranks=*/3, /*microbatches=*/8));
  penstock::Pipeline pipeline(network, schedule, {});
  for (int step = 0; step < 200; ++step) {
    const torch::Tensor points = torch::rand({256, 2}) * 4 - 2;
    const torch::Tensor heights = torch::sin(points.select(1, 0) * points.select(1, 1)).unsqueeze(1);
    const auto result = pipeline.step(points, heights, step, /*learning_rate=*/3e-3);
    if (step % 20 == 0) std::cout << "step " << step << "  loss " << result.loss << '\n';
  }
}
