// Everything of libtorch's that draws, in kinds that a layer can be made of.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

namespace penstock {

// From a floating [3, 4, 8] to a tensor of any shape.
using RandomKind = std::pair<std::string, std::function<at::Tensor(const at::Tensor&)>>;

inline std::vector<RandomKind> random_modules() {
  using namespace torch::nn;
  torch::manual_seed(1);
  const auto image = [](const at::Tensor& input) { return input.unsqueeze(1); };  // [3, 1, 4, 8]
  const auto volume = [](const at::Tensor& input) { return input.view({1, 3, 2, 2, 8}); };
  MultiheadAttention attention(MultiheadAttentionOptions(8, 2).dropout(0.5));
  LSTM lstm(LSTMOptions(8, 8).num_layers(3).dropout(0.5));
  GRU gru(GRUOptions(8, 8).num_layers(3).dropout(0.5));
  RNN rnn(RNNOptions(8, 8).num_layers(3).dropout(0.5));
  TransformerEncoderLayer encoder(TransformerEncoderLayerOptions(8, 2).dim_feedforward(16).dropout(0.5));
  return {{"Dropout", [](const at::Tensor& x) { return torch::nn::Dropout(0.5)(x); }},
          {"Dropout2d", [=](const at::Tensor& x) { return Dropout2d(0.5)(x.view({3, 4, 2, 4})); }},
          {"Dropout3d", [=](const at::Tensor& x) { return Dropout3d(0.5)(x.view({3, 4, 2, 2, 2})); }},
          {"AlphaDropout", [](const at::Tensor& x) { return AlphaDropout(0.5)(x); }},
          {"FeatureAlphaDropout", [](const at::Tensor& x) { return FeatureAlphaDropout(0.5)(x.view({3, 4, 2, 4})); }},
          {"MultiheadAttention", [=](const at::Tensor& x) mutable { return std::get<0>(attention(x, x, x)); }},
          {"LSTM", [=](const at::Tensor& x) mutable { return std::get<0>(lstm(x)); }},
          {"GRU", [=](const at::Tensor& x) mutable { return std::get<0>(gru(x)); }},
          {"RNN", [=](const at::Tensor& x) mutable { return std::get<0>(rnn(x)); }},
          {"TransformerEncoderLayer", [=](const at::Tensor& x) mutable { return encoder(x); }},
          {"RReLU", [](const at::Tensor& x) { return RReLU()(-x); }},
          {"FractionalMaxPool2d",
           [=](const at::Tensor& x) {
             return FractionalMaxPool2d(FractionalMaxPool2dOptions(2).output_size(torch::ExpandingArray<2>({2, 5})))(
                 image(x));
           }},
          {"FractionalMaxPool3d",
           [=](const at::Tensor& x) {
             return FractionalMaxPool3d(FractionalMaxPool3dOptions(1).output_size(torch::ExpandingArray<3>({1, 1, 5})))(
                 volume(x));
           }},
          {"gumbel_softmax", [](const at::Tensor& x) { return functional::gumbel_softmax(x); }}};
}

inline std::vector<RandomKind> random_functions() {
  const auto as_float = [](const at::Tensor& drawn) { return drawn.to(at::kFloat); };
  const auto filled = [](const at::Tensor& input) { return at::empty_like(input.detach()); };
  return {
      {"dropout", [](const at::Tensor& x) { return torch::dropout(x, 0.5, true); }},
      {"dropout_",
       [](const at::Tensor& x) {
         at::Tensor copy = x.detach().clone();
         return torch::dropout_(copy, 0.5, true);
       }},
      {"native_dropout", [](const at::Tensor& x) { return std::get<0>(at::native_dropout(x, 0.5, true)); }},
      {"feature_dropout", [](const at::Tensor& x) { return torch::feature_dropout(x, 0.5, true); }},
      {"alpha_dropout", [](const at::Tensor& x) { return torch::alpha_dropout(x, 0.5, true); }},
      {"attention", [](const at::Tensor& x) { return at::scaled_dot_product_attention(x, x, x, {}, 0.5); }},
      {"rrelu", [](const at::Tensor& x) { return at::rrelu(-x, 0.1, 0.9, true); }},
      {"rand", [](const at::Tensor& x) { return x * torch::rand({3, 4, 8}); }},
      {"rand_like", [](const at::Tensor& x) { return x * torch::rand_like(x); }},
      {"randn", [](const at::Tensor& x) { return x * torch::randn({3, 4, 8}); }},
      {"randn_like", [](const at::Tensor& x) { return x + torch::randn_like(x); }},
      {"rand_out",
       [=](const at::Tensor& x) {
         auto out = filled(x);
         return x * at::rand_out(out, x.sizes());
       }},
      {"randn_out",
       [=](const at::Tensor& x) {
         auto out = filled(x);
         return x * at::randn_out(out, x.sizes());
       }},
      {"randint", [=](const at::Tensor& x) { return x * as_float(torch::randint(100, {3, 4, 8})); }},
      {"randint_like", [](const at::Tensor& x) { return x * torch::randint_like(x, 100); }},
      {"randperm", [=](const at::Tensor& x) { return x.reshape({96}) * as_float(torch::randperm(96)); }},
      {"normal", [](const at::Tensor& x) { return x * at::normal(at::zeros({3, 4, 8}), at::ones({3, 4, 8})); }},
      {"normal of sizes", [](const at::Tensor& x) { return x * at::normal(0, 1, {3, 4, 8}); }},
      {"multinomial", [=](const at::Tensor& x) { return as_float(torch::multinomial(x.detach().abs()[0] + 0.1, 6)); }},
      {"bernoulli", [](const at::Tensor& x) { return x * torch::bernoulli(x.detach().sigmoid()); }},
      {"bernoulli of p", [](const at::Tensor& x) { return x * torch::bernoulli(x.detach(), 0.5); }},
      {"bernoulli_", [=](const at::Tensor& x) { return x * filled(x).bernoulli_(0.5); }},
      {"exponential_", [=](const at::Tensor& x) { return x * filled(x).exponential_(); }},
      {"cauchy_", [=](const at::Tensor& x) { return x * filled(x).cauchy_(); }},
      {"geometric_", [=](const at::Tensor& x) { return x * filled(x).geometric_(0.3); }},
      {"log_normal_", [=](const at::Tensor& x) { return x * filled(x).log_normal_(); }},
      {"normal_", [=](const at::Tensor& x) { return x * filled(x).normal_(); }},
      {"uniform_", [=](const at::Tensor& x) { return x * filled(x).uniform_(); }},
      {"random_", [=](const at::Tensor& x) { return x * filled(x).random_(1000); }},
      {"poisson", [](const at::Tensor& x) { return x * at::poisson(at::full({3, 4, 8}, 5.0F)); }},
      {"binomial",
       [](const at::Tensor& x) { return x * at::binomial(at::full({3, 4, 8}, 10.0F), at::full({3, 4, 8}, 0.5F)); }},
      {"gamma", [](const at::Tensor& x) { return x * at::_standard_gamma(at::ones({3, 4, 8})); }},
      {"dirichlet", [](const at::Tensor& x) { return x * at::_sample_dirichlet(at::ones({3, 4, 8})); }},
      {"the shared generator itself",
       [=](const at::Tensor& x) { return x * filled(x).bernoulli_(0.5, at::detail::getDefaultCPUGenerator()); }}};
}

inline std::vector<RandomKind> random_kinds() {
  std::vector<RandomKind> kinds = random_modules();
  for (RandomKind& kind : random_functions()) kinds.push_back(std::move(kind));
  return kinds;
}

}  // namespace penstock
