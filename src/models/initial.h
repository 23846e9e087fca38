// How the parameters of a module begin: drawn, or left to whoever fills them.
#pragma once

#include <torch/nn/init.h>
#include <torch/types.h>

namespace penstock {

class Initial {
 public:
  explicit Initial(bool drawn) : drawn_(drawn) {}

  [[nodiscard]] at::Tensor normal(at::IntArrayRef sizes, double deviation) const {
    at::Tensor made = torch::empty(sizes);
    if (drawn_) torch::nn::init::normal_(made, 0, deviation);
    return made;
  }
  [[nodiscard]] at::Tensor constant(at::IntArrayRef sizes, double value) const {
    at::Tensor made = torch::empty(sizes);
    if (drawn_) torch::nn::init::constant_(made, value);
    return made;
  }

 private:
  bool drawn_;
};

}  // namespace penstock
