#include <fmt/format.h>

#include <torch/torch.h>

#include "penstock/nn/dropout.h"
#include "penstock/nn/networks.h"

#include "nn/size_check.h"

namespace penstock {
namespace {

class HiddenLayer : public torch::nn::Module {
 public:
  HiddenLayer(std::int64_t inputs, std::int64_t width, double dropout)
      : linear_(register_module("linear", torch::nn::Linear(inputs, width))),
        dropout_(register_module("dropout", std::make_shared<Dropout>(dropout))) {}

  // [microbatch, …] to [microbatch, width]
  at::Tensor forward(const at::Tensor& input) {
    return dropout_->forward(at::relu(linear_->forward(input.flatten(1))));
  }

 private:
  torch::nn::Linear linear_;
  std::shared_ptr<Dropout> dropout_;
};

}  // namespace

Network make_mlp(const MlpSettings& settings) {
  require_positive("inputs", settings.inputs);
  require_positive("layers", settings.layers);
  require_positive("width", settings.width);
  require_positive("classes", settings.classes);
  Network network;
  for (std::int64_t layer = 0; layer < settings.layers; ++layer) {
    const std::int64_t inputs = layer == 0 ? settings.inputs : settings.width;
    network.layers.push_back({"hidden", fmt::format("hidden {}x{}", inputs, settings.width), [inputs, settings] {
                                return Layer(std::make_shared<HiddenLayer>(inputs, settings.width, settings.dropout));
                              }});
  }
  network.layers.push_back(
      layer_of<torch::nn::LinearImpl>("head", torch::nn::LinearOptions(settings.width, settings.classes)));
  network.loss = [](const Tensors& outputs, const Tensors& targets) { return cross_entropy(outputs, targets); };
  return network;
}

}  // namespace penstock
