#include "parity/drawn_network.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <random>
#include <set>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>

#include "penstock/base/random.h"
#include "penstock/nn/dropout.h"

namespace penstock {
namespace {

constexpr std::int64_t sample_length = 3;
constexpr std::int64_t sample_width = 6;

// Product and sum, in a function of one's own of two outputs.
struct ProductAndSum : torch::autograd::Function<ProductAndSum> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                                                const at::Tensor& w) {
    context->save_for_backward({x, w});
    return {x * w, x + w};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    return {gradients[0] * saved[1] + gradients[1], (gradients[0] * saved[0] + gradients[1]).flatten(0, 1).sum(0)};
  }
};

// What every kind has: a matrix, a vector, and the hooks that it counts.
class DrawnPart : public torch::nn::Module {
 public:
  DrawnPart(std::string kind, std::shared_ptr<std::atomic<std::int64_t>> hooks)
      : kind_(std::move(kind)), hooks_(std::move(hooks)) {
    weight_ = register_parameter("weight", torch::randn({sample_width, sample_width}) * 0.4);
    bias_ = register_parameter("bias", torch::randn({sample_width}) * 0.1);
    if (kind_ == "frozen") weight_.set_requires_grad(false);
    if (kind_ == "unused") register_parameter("unused", torch::randn({sample_width}));
    if (kind_ == "random") {
      dropout_ = register_module("dropout", torch::nn::Dropout(0.3));
      rrelu_ = register_module("rrelu", torch::nn::RReLU());
    }
    if (kind_ == "attention")
      attention_ = register_module(
          "attention",
          torch::nn::MultiheadAttention(torch::nn::MultiheadAttentionOptions(sample_width, 2).dropout(0.2)));
    if (kind_ == "frozen norm") {
      norm_ = register_module("norm", torch::nn::BatchNorm1d(sample_length));
      norm_->eval();
    }
    if (kind_ == "hooks") {
      weight_.register_hook([this](const at::Tensor& gradient) {
        ++*hooks_;
        return gradient * 0.5;
      });
      bias_.register_hook([this](const at::Tensor&) { ++*hooks_; });
    }
  }

  // The first tensor is what is learned from; those behind it pass, or are collected.
  Tensors forward(const Tensors& inputs) {
    Tensors outputs = inputs;
    outputs[0] = main(inputs[0]);
    if (kind_ == "query") outputs.push_back(torch::tanh(weight_));
    if (kind_ == "parameter") outputs.push_back(bias_);
    if (kind_ == "penalty") outputs.push_back(weight_.square().sum());
    if (kind_ == "codes") outputs.push_back((codes(inputs[0]) - inputs[0].detach()).square().sum());
    if (kind_ == "collect") {
      for (std::size_t index = 1; index < inputs.size(); ++index) outputs[0] = outputs[0] + inputs[index].mean() * 0.1;
      outputs.resize(1);
    }
    if (kind_ == "thrice") outputs.insert(outputs.end(), 2, outputs[0]);
    if (kind_ == "halves") outputs.push_back(torch::linear(inputs[0], torch::cat({weight_, weight_})).chunk(2, -1)[1]);
    return outputs;
  }

 private:
  at::Tensor linear(const at::Tensor& x) { return torch::linear(x, weight_, bias_); }
  at::Tensor codes(const at::Tensor& x) { return torch::embedding(weight_, x.argmax(-1)); }

  at::Tensor main(at::Tensor x) {
    if (kind_ == "twice") return torch::matmul(torch::matmul(x, weight_), weight_) + x + bias_;
    if (kind_ == "recurrent") {
      at::Tensor state = x;
      for (int turn = 0; turn < 3; ++turn) state = torch::tanh(linear(state)) + x * 0.5;
      return state;
    }
    if (kind_ == "split") {
      const auto halves = weight_.chunk(2, 1);
      return x + torch::cat({torch::matmul(x, halves[1]), torch::tanh(torch::matmul(x, halves[0]))}, -1);
    }
    if (kind_ == "weight norm")
      return x + torch::linear(x, weight_ / (weight_.square().sum(-1, true) + 1).sqrt(), bias_);
    if (kind_ == "function") {
      const auto pair = ProductAndSum::apply(linear(x), bias_);
      return x + torch::tanh(pair[0]) + torch::sigmoid(pair[1]);
    }
    if (kind_ == "detached") return torch::tanh(linear(x.detach())) + bias_;
    if (kind_ == "codes") return x + (codes(x) - x).detach();
    // libtorch refuses to write to rows that are one.
    if (kind_ == "in place") return linear(x.is_non_overlapping_and_dense() ? torch::relu_(x) : torch::relu(x));
    if (kind_ == "in place later") return linear(x).mul_(0.5).add_(bias_).relu_() + x;
    if (kind_ == "random") return dropout_(rrelu_(linear(x))) + torch::bernoulli(torch::full_like(x, 0.5)) * x;
    if (kind_ == "attention") return x + std::get<0>(attention_(x, x, x));
    if (kind_ == "frozen norm") return norm_(linear(x)) + x;
    if (kind_ == "hooks") {
      if (x.requires_grad())
        x.register_hook([this](const at::Tensor& gradient) {
          ++*hooks_;
          return gradient * 2;
        });
      at::Tensor y = torch::tanh(linear(x));
      if (y.requires_grad()) y.register_hook([this](const at::Tensor&) { ++*hooks_; });
      return y;
    }
    if (kind_ == "turned") return torch::tanh(linear(x.transpose(0, 1))).transpose(0, 1);
    if (kind_ == "one row") return torch::tanh(linear(x)).mean(1, true).expand_as(x);
    if (kind_ == "gaps")
      return torch::linear(x, torch::cat({weight_, weight_ * 2})).unflatten(-1, {sample_width, 2}).select(-1, 0) +
             0 * x[0];
    if (kind_ == "view") return torch::linear(x, torch::cat({weight_, weight_ * 2})).narrow(-1, 3, sample_width);
    return torch::tanh(linear(x)) + x;  // linear, frozen, unused, query, parameter, penalty, collect, halves, thrice
  }

  std::string kind_;
  std::shared_ptr<std::atomic<std::int64_t>> hooks_;
  at::Tensor weight_;
  at::Tensor bias_;
  torch::nn::Dropout dropout_{nullptr};
  torch::nn::RReLU rrelu_{nullptr};
  torch::nn::MultiheadAttention attention_{nullptr};
  torch::nn::BatchNorm1d norm_{nullptr};
};

const std::vector<std::string>& kinds() {
  static const std::vector<std::string> all{
      "linear",    "twice",    "recurrent",      "split",  "weight norm", "function",    "detached",
      "codes",     "in place", "in place later", "random", "attention",   "frozen norm", "hooks",
      "turned",    "one row",  "gaps",           "view",   "frozen",      "unused",      "query",
      "parameter", "penalty",  "collect",        "halves", "thrice"};
  return all;
}

// What is left beside the first output is learned from as well.
Loss drawn_loss(const Tensors& outputs, const Tensors& targets) {
  Loss loss = squared_error({outputs[0]}, targets);
  for (std::size_t index = 1; index < outputs.size(); ++index) loss.sum = loss.sum + outputs[index].sum() * 0.05;
  return loss;
}

}  // namespace

DrawnNetwork draw_network(std::uint64_t seed) {
  std::mt19937_64 generator(mix_key({seed, 23}));
  const auto below = [&](std::size_t end) { return std::uniform_int_distribution<std::size_t>(0, end - 1)(generator); };
  DrawnNetwork drawn;
  drawn.hooks = std::make_shared<std::atomic<std::int64_t>>(0);
  std::vector<std::int64_t> tieable;
  for (int layer = 0; layer < drawn_layers; ++layer) {
    // What a stop or a code leaves behind it gets no gradient: the first layer is one that learns from all that follow.
    const std::string kind = layer == 0 ? "linear" : kinds()[below(kinds().size())];
    drawn.kinds.push_back(kind);
    if (kind != "frozen" && kind != "hooks") tieable.push_back(layer);
    drawn.network.layers.push_back(
        {kind, "", [kind, hooks = drawn.hooks] { return Layer(std::make_shared<DrawnPart>(kind, hooks)); }});
  }
  drawn.network.loss = drawn_loss;
  std::shuffle(tieable.begin(), tieable.end(), generator);
  const std::size_t places = below(6);
  for (std::size_t place = 1; place < std::min(places, tieable.size()); ++place) {
    // Each tied to one of those before it: an owner with copies, a chain, or both.
    const std::int64_t owner = tieable[below(2) == 0 ? 0 : place - 1];
    drawn.network.ties.push_back({{owner, "weight"}, {tieable[place], "weight"}});
  }
  return drawn;
}

std::vector<Microbatch> drawn_minibatch(int microbatches, std::int64_t samples, std::int64_t step) {
  at::Generator generator = at::detail::createCPUGenerator(mix_key({29, static_cast<std::uint64_t>(step)}));
  const at::Tensor input = at::randn({samples, sample_length, sample_width}, generator);
  const at::Tensor target = at::randn({samples, sample_length, sample_width}, generator);
  return split_minibatch({{{input}}, {{target}}}, microbatches);
}

namespace {

struct PlainParameters {
  std::vector<at::Tensor> all;                // that require a gradient
  std::vector<std::vector<at::Tensor>> tied;  // those that are one
  std::set<const void*> copies;               // all but one of each
};

PlainParameters find_parameters(const Network& network, const std::vector<Layer>& layers) {
  PlainParameters found;
  for (const Layer& layer : layers)
    for (const at::Tensor& parameter : layer.module().parameters())
      if (parameter.requires_grad()) found.all.push_back(parameter);
  if (network.ties.empty()) return found;
  // All ties of a drawn network hang together.
  const at::NoGradGuard no_graph;
  std::vector<std::int64_t> members{network.ties.front().owner.layer};
  for (const Tie& tie : network.ties) {
    const at::Tensor copy = layers[static_cast<std::size_t>(tie.copy.layer)].module().named_parameters()["weight"];
    copy.copy_(layers[static_cast<std::size_t>(tie.owner.layer)].module().named_parameters()["weight"]);
    found.copies.insert(copy.unsafeGetTensorImpl());
    members.push_back(tie.copy.layer);
  }
  std::sort(members.begin(), members.end());
  found.tied.emplace_back();
  for (const std::int64_t member : members)
    found.tied.back().push_back(layers[static_cast<std::size_t>(member)].module().named_parameters()["weight"]);
  return found;
}

void add_ties(const PlainParameters& parameters) {
  for (const auto& group : parameters.tied) {
    at::Tensor total;
    for (const at::Tensor& member : group)
      if (member.grad().defined()) total = total.defined() ? total + member.grad() : member.grad().clone();
    for (const at::Tensor& member : group)
      if (total.defined()) member.mutable_grad() = total.clone();
  }
}

double clipped_norm(const PlainParameters& parameters, double clip) {
  double squares = 0;
  for (const at::Tensor& parameter : parameters.all) {
    if (!parameter.grad().defined() || parameters.copies.contains(parameter.unsafeGetTensorImpl())) continue;
    const auto norm = parameter.grad().norm().item<double>();
    squares += norm * norm;
  }
  const double norm = std::sqrt(squares);
  for (const at::Tensor& parameter : parameters.all)
    if (clip > 0 && norm > clip && parameter.grad().defined()) parameter.mutable_grad().mul_(clip / (norm + 1e-6));
  return norm;
}

Tensors run_layers(const std::vector<Layer>& layers, Tensors flow, DrawPlace place) {
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    place.layer = static_cast<std::int64_t>(layer);
    const DrawScope draws(place);
    // libtorch itself refuses what a layer changes in place if the layer before it has kept it.
    if (!flow[0].is_leaf()) flow[0] = flow[0].clone(at::MemoryFormat::Preserve);
    flow = layers[layer].forward(flow);
  }
  return flow;
}

}  // namespace

Trace train_plainly(const Network& network, int microbatches, std::int64_t samples, int steps, double learning_rate,
                    double clip) {
  std::vector<Layer> layers;
  layers.reserve(drawn_layers);
  for (std::int64_t layer = 0; layer < drawn_layers; ++layer)
    layers.push_back(build_layer(network, layer, 3, at::kCPU));
  const PlainParameters parameters = find_parameters(network, layers);
  torch::optim::SGD optimizer(parameters.all, torch::optim::SGDOptions(learning_rate).momentum(0.9));
  Trace trace;
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    double sum = 0;
    double weight = 0;
    std::int64_t index = 0;
    for (const Microbatch& microbatch : drawn_minibatch(microbatches, samples, step)) {
      const DrawPlace place{3, step, index++, 0};
      const Loss loss = network.loss(run_layers(layers, microbatch.inputs, place), microbatch.targets);
      loss.sum.backward();
      sum += loss.sum.item<double>();
      weight += loss.weight;
    }
    const at::NoGradGuard no_graph;
    add_ties(parameters);
    for (const at::Tensor& parameter : parameters.all)
      if (parameter.grad().defined()) parameter.mutable_grad().div_(weight);
    trace.losses.push_back(sum / weight);
    trace.norms.push_back(clipped_norm(parameters, clip));
    optimizer.step();
  }
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    for (const auto& named : layers[layer].module().named_parameters())
      trace.weights.emplace_back(fmt::format("layers.{}.{}", layer, named.key()), named.value().detach());
    for (const auto& named : layers[layer].module().named_buffers())
      trace.weights.emplace_back(fmt::format("layers.{}.{}", layer, named.key()), named.value().detach());
  }
  return trace;
}

}  // namespace penstock
