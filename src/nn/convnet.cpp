#include <fmt/format.h>

#include <torch/torch.h>

#include "penstock/nn/dropout.h"
#include "penstock/nn/networks.h"

#include "nn/size_check.h"

namespace penstock {
namespace {

namespace nn = torch::nn;

nn::Conv2d convolution(std::int64_t in, std::int64_t out, std::int64_t stride) {
  nn::Conv2d layer(nn::Conv2dOptions(in, out, 3).stride(stride).padding(1).bias(false));
  return layer;
}

nn::GroupNorm norm(const ConvnetSettings& settings) {
  nn::GroupNorm layer(nn::GroupNormOptions(settings.groups, settings.width));
  return layer;
}

class Stem : public nn::Module {
 public:
  explicit Stem(const ConvnetSettings& settings)
      : convolution_(register_module("convolution", convolution(settings.channels, settings.width, 1))),
        norm_(register_module("norm", norm(settings))) {}

  // [microbatch, channels, rows, columns] to [microbatch, width, rows, columns]
  at::Tensor forward(const at::Tensor& input) { return at::relu(norm_->forward(convolution_->forward(input))); }

 private:
  nn::Conv2d convolution_;
  nn::GroupNorm norm_;
};

class ResidualBlock : public nn::Module {
 public:
  ResidualBlock(const ConvnetSettings& settings, std::int64_t stride)
      : stride_(stride),
        first_(register_module("first", convolution(settings.width, settings.width, stride))),
        first_norm_(register_module("first_norm", norm(settings))),
        second_(register_module("second", convolution(settings.width, settings.width, 1))),
        second_norm_(register_module("second_norm", norm(settings))),
        dropout_(register_module("dropout", std::make_shared<Dropout>(settings.dropout))) {}

  // [microbatch, width, rows, columns] to the same, rows and columns divided by the stride
  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor shortcut = stride_ == 1 ? input : at::avg_pool2d(input, stride_, stride_, 0, /*ceil_mode=*/true);
    const at::Tensor hidden = at::relu(first_norm_->forward(first_->forward(input)));
    return at::relu(shortcut + dropout_->forward(second_norm_->forward(second_->forward(hidden))));
  }

 private:
  std::int64_t stride_;
  nn::Conv2d first_;
  nn::GroupNorm first_norm_;
  nn::Conv2d second_;
  nn::GroupNorm second_norm_;
  std::shared_ptr<Dropout> dropout_;
};

class ClassHead : public nn::Module {
 public:
  explicit ClassHead(const ConvnetSettings& settings)
      : output_(register_module("output", nn::Linear(settings.width, settings.classes))) {}

  // [microbatch, width, rows, columns] to [microbatch, classes]
  at::Tensor forward(const at::Tensor& input) { return output_->forward(input.mean({2, 3})); }

 private:
  nn::Linear output_;
};

}  // namespace

Network make_convnet(const ConvnetSettings& settings) {
  require_positive("channels", settings.channels);
  require_positive("layers", settings.layers);
  require_positive("classes", settings.classes);
  require_divides("groups", settings.groups, "width", settings.width);
  constexpr std::int64_t smallest_side = 4;
  Network network;
  network.layers.push_back({"stem", "", [settings] { return Layer(std::make_shared<Stem>(settings)); }});
  std::int64_t side = std::min(settings.rows, settings.columns);
  for (std::int64_t block = 0; block < settings.layers; ++block) {
    const std::int64_t stride = block % 2 == 1 && side >= 2 * smallest_side ? 2 : 1;
    side = (side + stride - 1) / stride;
    network.layers.push_back({"block", fmt::format("residual block {} by {}", settings.width, stride),
                              [settings, stride] { return Layer(std::make_shared<ResidualBlock>(settings, stride)); }});
  }
  network.layers.push_back({"head", "", [settings] { return Layer(std::make_shared<ClassHead>(settings)); }});
  network.loss = [](const Tensors& outputs, const Tensors& targets) { return cross_entropy(outputs, targets); };
  return network;
}

}  // namespace penstock
