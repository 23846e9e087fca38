// A network with a fault of each kind, and what penstock::audit says of it. The layers between the faults show what is
// no fault: random numbers, an input that is changed in place, buffers.
#include <iostream>
#include <vector>

#include <torch/torch.h>

#include <penstock/penstock.h>

namespace {

using torch::Tensor;

// Fine: what it draws depends on seed, step, microbatch and layer alone.
struct Random : torch::nn::Module {
  Random()
      : linear(register_module("linear", torch::nn::Linear(8, 8))),
        dropout(register_module("dropout", torch::nn::Dropout(0.2))) {}
  Tensor forward(const Tensor& input) { return dropout(linear(input)); }
  torch::nn::Linear linear;
  torch::nn::Dropout dropout;
};

// Fine: it gets a copy of what it changes.
struct InPlace : torch::nn::Module {
  InPlace() : linear(register_module("linear", torch::nn::Linear(8, 8))) {}
  Tensor forward(Tensor input) { return linear(torch::relu_(input)); }
  torch::nn::Linear linear;
};

// Fine: its running statistics move once for each microbatch.
struct Normalised : torch::nn::Module {
  Normalised() : norm(register_module("norm", torch::nn::BatchNorm1d(8))) {}
  Tensor forward(const Tensor& input) { return norm(input); }
  torch::nn::BatchNorm1d norm;
};

// Fault: a member that is no buffer, so that a second run of the same microbatch computes something else.
struct Counting : torch::nn::Module {
  Counting() : linear(register_module("linear", torch::nn::Linear(8, 8))) {}
  Tensor forward(const Tensor& input) { return linear(input) * (1.0 + 0.1 * ++passes); }
  torch::nn::Linear linear;
  int passes = 0;
};

// Fault: it never lets go of what it has seen.
struct Hoarding : torch::nn::Module {
  Tensor forward(const Tensor& input) {
    seen.push_back((input * 2).detach());
    return input + 1;
  }
  std::vector<Tensor> seen;
};

// Fault: the scale is changed by the forward pass, while other microbatches are in flight.
struct Clamping : torch::nn::Module {
  Clamping() : scale(register_parameter("scale", torch::ones({8}))) {}
  Tensor forward(const Tensor& input) {
    {
      const torch::NoGradGuard no_graph;
      scale.clamp_(0, 1);
    }
    return input * scale;
  }
  Tensor scale;
};

penstock::Network network_of(std::vector<penstock::LayerSpec> layers) {
  penstock::Network network;
  network.layers = std::move(layers);
  network.layers.push_back(penstock::layer_of<torch::nn::LinearImpl>("head", torch::nn::LinearOptions(8, 1)));
  network.loss = penstock::squared_error;
  return network;
}

bool audited(const char* title, const penstock::Network& network) {
  const torch::Tensor inputs = torch::randn({12, 8});
  const penstock::AuditReport report =
      penstock::audit(network, penstock::Minibatch{{{inputs}}, {{torch::randn({12, 1})}}});
  std::cout << "== " << title << "\n\n" << to_string(report) << '\n';
  return report.holds();
}

}  // namespace

int main() {
  using penstock::layer_of;
  torch::manual_seed(1);
  const bool good =
      audited("no fault",
              network_of({layer_of<Random>("random"), layer_of<InPlace>("in place"), layer_of<Normalised>("norm")}));
  audited("a counter in a member, and a list that grows",
          network_of({layer_of<Counting>("counting"), layer_of<Hoarding>("hoarding")}));
  audited("a parameter that the forward pass changes",
          network_of({layer_of<Random>("random"), layer_of<Clamping>("clamping")}));
  penstock::Network without_graph = network_of({layer_of<Random>("random")});
  without_graph.loss = [](const penstock::Tensors& outputs, const penstock::Tensors& targets) {
    return penstock::Loss{(outputs[0] - targets[0]).detach().square().sum(), 4};
  };
  audited("a loss that no parameter leads to", without_graph);
  const auto shared = std::make_shared<torch::nn::LinearImpl>(torch::nn::LinearOptions(8, 8));
  const penstock::LayerSpec twice{"shared", "", [shared] { return penstock::Layer(shared); }};
  audited("one module as two layers", network_of({twice, layer_of<InPlace>("in place"), twice}));
  return good ? 0 : 1;
}
