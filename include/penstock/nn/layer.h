/// \file
/// A network is a list of layers. A layer is named, is built only where it lives, and maps tensors to tensors; a cut
/// can fall between any two of them.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <torch/nn/module.h>

namespace penstock {

/// What flows over a boundary: activations forward, their gradients backward.
using Tensors = std::vector<at::Tensor>;

/// A module that maps one tensor to one tensor, or several to several.
template <class Module>
concept LayerModule = std::derived_from<Module, torch::nn::Module> && requires(Module& module) {
  requires requires(const at::Tensor& input) {
    { module.forward(input) } -> std::convertible_to<at::Tensor>;
  } || requires(const Tensors& inputs) {
    { module.forward(inputs) } -> std::convertible_to<Tensors>;
  };
};

/// A layer that has been built: a module and its forward pass. Copies share the module.
class Layer {
 public:
  /// Wraps any `torch::nn::Module` whose `forward` takes and returns a tensor, or a `Tensors`.
  template <LayerModule Module>
  explicit Layer(const std::shared_ptr<Module>& module) : module_(module) {
    if constexpr (requires(const at::Tensor& input) { module->forward(input); }) {
      forward_ = [module](const Tensors& inputs) { return Tensors{module->forward(single_input(inputs))}; };
    } else {
      forward_ = [module](const Tensors& inputs) { return Tensors(module->forward(inputs)); };
    }
  }

  /// Of a tensor that the module returns several times, each place has a name of its own in the graph: what comes back
  /// for one is added up before it is added to the others, as it is if a cut carries them apart.
  /// \throws Error (RunFailed) where a layer of one tensor is given another number of them; whatever the module throws.
  [[nodiscard]] Tensors forward(const Tensors& inputs) const;

  [[nodiscard]] torch::nn::Module& module() const { return *module_; }

  /// Of a layer that has just been built and was not copied: whether somebody else holds its module too, who could
  /// make it another layer as well.
  [[nodiscard]] bool is_held_elsewhere() const { return module_.use_count() > 2; }

 private:
  static const at::Tensor& single_input(const Tensors& inputs);

  std::shared_ptr<torch::nn::Module> module_;
  std::function<Tensors(const Tensors&)> forward_;
};

/// How to build a layer. Holds no tensor.
struct LayerSpec {
  std::string name;  ///< for people: "embedding", "block", "head"
  /// Layers of the same non-empty kind have the same parameters' shapes, so that one of them can stand for all when
  /// they are counted or timed. Example: "block 128x4".
  std::string kind;
  std::function<Layer()> build;  ///< called on the rank that owns the layer, with libtorch's default generator seeded
};

/// One parameter of one layer of a network.
struct ParameterAddress {
  std::int64_t layer = 0;
  std::string name;  ///< as `torch::nn::Module::named_parameters` spells it: "token.weight"

  friend bool operator==(const ParameterAddress&, const ParameterAddress&) = default;
};

/// Two parameters that are one: `copy` starts as `owner` does and both see the sum of their gradients, in the order of
/// the layers, wherever the cut falls. The norm for clipping counts it once. Ties that share a parameter belong
/// together
/// (`tie_groups`): a copy may be the owner of another, and an owner have any number of copies.
struct Tie {
  ParameterAddress owner;
  ParameterAddress copy;

  friend bool operator==(const Tie&, const Tie&) = default;
};

/// What a loss returns for a microbatch. Gradients are those of the sum; they are divided once, by the weight of the
/// whole minibatch, which gives the minibatch's gradient exactly, also where microbatches differ in size or are masked.
struct Loss {
  at::Tensor sum;     ///< a scalar that the backward pass starts from
  double weight = 0;  ///< how many samples, or unmasked tokens, the sum runs over
};

/// Any function of the network's outputs and the microbatch's targets: labels, and masks or weights where there are
/// any. Called on the rank of the last stage, in full precision also under autocast.
using LossFunction = std::function<Loss(const Tensors& outputs, const Tensors& targets)>;

/// A tensor that a later layer reads past those between: output number `output` of layer `from` is appended to the
/// inputs of layer `to`, after what the layer before it returned, in the order of `Network::skips`. Between stages it
/// travels with the boundaries from the stage of `from` to that of `to`, and nowhere else; several readers on the way
/// share it.
struct Skip {
  std::int64_t from = 0;  ///< −1: the network's own inputs
  std::int64_t to = 0;
  std::int64_t output = 0;

  friend bool operator==(const Skip&, const Skip&) = default;
};

/// A network as it is described, before anything of it is built.
struct Network {
  std::vector<LayerSpec> layers;
  LossFunction loss;
  std::vector<Tie> ties;
  std::vector<Skip> skips;
};

/// \throws Error (BadInput) for a network without layers or loss, for a skip that names a layer that there is not
/// or is read before it is written, and for ties that name such a layer or are no groups (`tie_groups`).
void check_network(const Network& network);

/// A layer from a module type and the arguments of its constructor. Example:
/// `layer_of<torch::nn::LinearImpl>("projection", torch::nn::LinearOptions(128, 10))`.
template <LayerModule Module, class... Arguments>
[[nodiscard]] LayerSpec layer_of(std::string name, Arguments... arguments) {
  return {std::move(name), "", [arguments...] { return Layer(std::make_shared<Module>(arguments...)); }};
}

/// Builds one layer with initial weights that depend on `seed` and `layer` alone: the same under any cut, on any
/// thread. Builds one layer at a time in the process, because libtorch's default generator is one for all threads. What
/// the layer draws later, in its forward pass, comes from a `DrawScope`.
/// \throws Error (RunFailed) for whatever its constructor throws.
[[nodiscard]] Layer build_layer(const Network& network, std::int64_t layer, std::uint64_t seed, at::Device device);

/// The number of parameters of each layer. Builds one layer of each kind, one at a time, and lets it go again.
[[nodiscard]] std::vector<std::int64_t> parameter_counts(const Network& network);

}  // namespace penstock
