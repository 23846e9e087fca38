// A network of one's own, trained as `penstock train` trains the built-in ones: any torch module becomes a layer, any
// function a loss.
#include <iostream>

#include <torch/torch.h>

#include <penstock/penstock.h>

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
  network.loss = penstock::squared_error;

  torch::manual_seed(1);
  const torch::Tensor points = torch::rand({10'000, 2}) * 4 - 2;
  const torch::Tensor heights = torch::sin(points.select(1, 0) * points.select(1, 1)).unsqueeze(1);
  const auto samples = penstock::samples_of({points.slice(0, 0, 9'000)}, {heights.slice(0, 0, 9'000)});
  const auto held_out = penstock::samples_of({points.slice(0, 9'000)}, {heights.slice(0, 9'000)});

  // Once, for a network of one's own: whether it has the same bits however it is cut, and what its layers do.
  const penstock::Minibatch few{{{points.slice(0, 0, 6)}}, {{heights.slice(0, 0, 6)}}};
  std::cout << to_string(penstock::audit(network, few));

  penstock::TrainSettings settings;
  settings.layout.stages = 3;
  settings.layout.microbatches = 8;
  settings.training.batch = 256;
  settings.training.learning_rate = 3e-3;
  settings.output.folder = "runs/sine";
  settings.output.resume = true;  // Ctrl-C, and start it again, with other stages if you like: to the same bits.

  penstock::Progress progress;
  penstock::TrainObserver observer = progress.observer();
  penstock::watch_stop_signals();
  observer.stop_signal = penstock::stop_signal;
  const penstock::TrainResult result = penstock::train({network, samples, held_out}, settings, observer);
  progress.finish();
  std::cout << "after step " << result.step << " the held-out loss is " << result.held_out_loss << '\n';
}
