/// \file
/// A network is a list of layers. A layer is named, is built only where it lives, and maps tensors to tensors; a cut
/// can fall between any two of them. docs/cpp.md leads through it.
///
///     penstock::Network network;
///     network.layers = {penstock::layer_of<Embedding>("embedding"), penstock::layer_of<Block>("block")};
///     network.loss = penstock::squared_error;
///
/// A layer that attends to the tokens before may remember them from call to call (`CacheScope`), so that a token that
/// is added costs one token's work.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

namespace penstock {

/// What flows over a boundary: activations forward, their gradients backward.
using Tensors = std::vector<at::Tensor>;

template <class Output>
inline constexpr bool is_tensor = std::convertible_to<Output, at::Tensor>;
template <class Output>
inline constexpr bool is_list_of_tensors = std::convertible_to<Output, Tensors>;

/// Whether a value is a tensor, a `Tensors`, or a tuple of these.
template <class Output>
inline constexpr bool holds_tensors = is_tensor<Output> || is_list_of_tensors<Output>;
template <class... Parts>
// NOLINTNEXTLINE(misc-redundant-expression): of a tuple with parts of one type.
inline constexpr bool holds_tensors<std::tuple<Parts...>> = (holds_tensors<Parts> && ...);

/// Appends the tensors of such a value, in order. An undefined tensor is one too.
template <class Output>
void append_tensors(Tensors& all, const Output& output) {
  if constexpr (is_tensor<Output>) {
    all.push_back(output);
  } else if constexpr (is_list_of_tensors<Output>) {
    const Tensors& list = output;
    all.insert(all.end(), list.begin(), list.end());
  } else {
    std::apply([&all](const auto&... parts) { (append_tensors(all, parts), ...); }, output);
  }
}

/// The most tensors that a `forward` with a parameter for each of them takes; one of a `Tensors` takes any number.
inline constexpr std::size_t most_tensor_parameters = 8;

template <std::size_t>
using TensorParameter = const at::Tensor&;

template <class Module, class Places>
inline constexpr bool forward_takes_places = false;
template <class Module, std::size_t... place>
inline constexpr bool forward_takes_places<Module, std::index_sequence<place...>> =
    requires(Module& module, TensorParameter<place>... inputs) {
      requires holds_tensors<std::remove_cvref_t<decltype(module.forward(inputs...))>>;
    };

/// Whether `forward` can be called with `count` tensors; those that have defaults may be left out.
template <class Module, std::size_t count>
concept ForwardTakes = forward_takes_places<Module, std::make_index_sequence<count>>;

/// Whether `forward` takes a list of tensors.
template <class Module>
concept ForwardTakesList = requires(Module& module, const Tensors& inputs) {
  requires holds_tensors<std::remove_cvref_t<decltype(module.forward(inputs))>>;
};

template <class Module, class Counts>
inline constexpr bool forward_takes_some = false;
template <class Module, std::size_t... less_one>
inline constexpr bool forward_takes_some<Module, std::index_sequence<less_one...>> =
    (ForwardTakes<Module, less_one + 1> || ...);

/// A module whose `forward` takes up to eight tensors, or a `Tensors`, and returns a tensor, a `Tensors` or a tuple of
/// tensors.
template <class Module>
concept LayerModule =
    std::derived_from<Module, torch::nn::Module> &&
    (ForwardTakesList<Module> || forward_takes_some<Module, std::make_index_sequence<most_tensor_parameters>>);

/// A layer that has been built: a module and its forward pass. Copies share the module.
class Layer {
 public:
  /// Wraps any `torch::nn::Module` whose `forward` has one of the forms of `LayerModule`. Given as many tensors as it
  /// has parameters, `forward` gets each in its place; given another number, it gets a `Tensors`, if it takes one.
  template <class Module>
  explicit Layer(const std::shared_ptr<Module>& module) : module_(module) {
    static_assert(LayerModule<Module>,
                  "a layer is a torch::nn::Module whose forward takes torch::Tensor arguments, at most 8, or one "
                  "penstock::Tensors, and returns a torch::Tensor, a penstock::Tensors or a tuple of tensors; wrap "
                  "another module in one whose forward does, and take tensors by value or as const torch::Tensor&");
    if constexpr (LayerModule<Module>)
      forward_ = [module](const Tensors& inputs) { return call<Module, 1>(*module, inputs); };
  }

  /// If the module returns one tensor in several places, each place is a node of its own in the graph: the gradients
  /// that come back for one place are added up before they are added to those of the others, as they are if a cut
  /// separates the places.
  /// \throws Error (RunFailed) if `forward` does not take as many tensors as it is given; whatever the module throws.
  [[nodiscard]] Tensors forward(const Tensors& inputs) const;

  [[nodiscard]] torch::nn::Module& module() const { return *module_; }

  /// For a layer that has just been built and was not copied: whether something else holds its module too, and could
  /// make another layer of it.
  [[nodiscard]] bool is_held_elsewhere() const { return module_.use_count() > 2; }

 private:
  // Of the forms with `count` or more parameters.
  template <class Module, std::size_t count>
  static Tensors call(Module& module, const Tensors& inputs) {
    if constexpr (count > most_tensor_parameters) {
      if constexpr (ForwardTakesList<Module>)
        return listed(module.forward(inputs));
      else
        throw_wrong_number(module, inputs.size());
    } else {
      if constexpr (ForwardTakes<Module, count>)
        if (inputs.size() == count) return call_with(module, inputs, std::make_index_sequence<count>{});
      return call<Module, count + 1>(module, inputs);
    }
  }
  template <class Module, std::size_t... place>
  static Tensors call_with(Module& module, const Tensors& inputs, std::index_sequence<place...> /*places*/) {
    return listed(module.forward(inputs[place]...));
  }
  template <class Output>
  static Tensors listed(const Output& output) {
    Tensors all;
    append_tensors(all, output);
    return all;
  }
  [[noreturn]] static void throw_wrong_number(const torch::nn::Module& module, std::size_t count);

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
/// together (`tie_groups`): a copy may be the owner of another, and an owner may have any number of copies.
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
template <class Module, class... Arguments>
[[nodiscard]] LayerSpec layer_of(std::string name, Arguments... arguments) {
  return {std::move(name), "", [arguments...] { return Layer(std::make_shared<Module>(arguments...)); }};
}

/// Builds one layer with initial weights that depend on `seed` and `layer` alone: the same under any cut, on any
/// thread. Builds one layer at a time in the process, because libtorch's default generator is one for all threads. What
/// the layer draws later, in its forward pass, comes from a `DrawScope`.
/// \throws Error (RunFailed) for whatever its constructor throws.
[[nodiscard]] Layer build_layer(const Network& network, std::int64_t layer, std::uint64_t seed, at::Device device);

/// The number of parameters of each layer. Builds one layer of each kind, one at a time, and frees it again.
[[nodiscard]] std::vector<std::int64_t> parameter_counts(const Network& network);

/// One layer's memory of one sequence, or of several of the same length.
struct KeyValueCache {
  at::Tensor keys;          ///< [microbatch, heads, length, width / heads]; undefined before the first token
  at::Tensor values;        ///< as keys
  std::int64_t length = 0;  ///< tokens so far
};

/// While it lives, the layer that this thread computes reads and extends `cache`: its input holds only what is new.
/// Scopes nest; without one a layer sees whole sequences.
class CacheScope {
 public:
  explicit CacheScope(KeyValueCache& cache);
  CacheScope(const CacheScope&) = delete;
  CacheScope& operator=(const CacheScope&) = delete;
  CacheScope(CacheScope&&) = delete;
  CacheScope& operator=(CacheScope&&) = delete;
  ~CacheScope();

  /// The innermost cache of this thread, or null.
  [[nodiscard]] static KeyValueCache* current();

 private:
  KeyValueCache* outer_;
};

}  // namespace penstock
