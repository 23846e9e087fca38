#include "penstock/nn/layer.h"

#include <fmt/format.h>
#include <map>
#include <mutex>
#include <set>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "penstock/base/error.h"
#include "penstock/base/random.h"
#include "penstock/nn/dropout.h"
#include "penstock/nn/ties.h"

namespace penstock {
namespace {

constexpr std::uint64_t initial_weights_key = 1;

// Seeds libtorch's default generator for the time of one construction, and gives the caller's state back.
class SeededDefaultGenerator {
 public:
  explicit SeededDefaultGenerator(std::uint64_t seed) : generator_(at::detail::getDefaultCPUGenerator()) {
    const std::scoped_lock lock(generator_.mutex());
    state_ = generator_.get_state();
    generator_.set_current_seed(seed);
  }
  SeededDefaultGenerator(const SeededDefaultGenerator&) = delete;
  SeededDefaultGenerator& operator=(const SeededDefaultGenerator&) = delete;
  SeededDefaultGenerator(SeededDefaultGenerator&&) = delete;
  SeededDefaultGenerator& operator=(SeededDefaultGenerator&&) = delete;
  ~SeededDefaultGenerator() {
    const std::scoped_lock lock(generator_.mutex());
    generator_.set_state(state_);
  }

 private:
  at::Generator generator_;
  at::Tensor state_;
};

std::mutex& construction() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

Tensors Layer::forward(const Tensors& inputs) const {
  Tensors outputs = forward_(inputs);
  if (outputs.size() < 2) return outputs;
  std::map<const void*, int> places;
  for (const at::Tensor& output : outputs)
    if (output.defined() && output.requires_grad()) ++places[output.unsafeGetTensorImpl()];
  if (places.size() == outputs.size()) return outputs;
  for (at::Tensor& output : outputs) {
    const auto found = output.defined() ? places.find(output.unsafeGetTensorImpl()) : places.end();
    if (found != places.end() && found->second > 1) output = at::alias(output);
  }
  return outputs;
}

void Layer::throw_wrong_number(const torch::nn::Module& module, std::size_t count) {
  throw run_failed(
      fmt::format("forward of {} was given {}", module.name(), counted(static_cast<std::int64_t>(count), "tensor")),
      "as many as it has parameters",
      "give it a parameter for each tensor that the layer before returns and that skips bring, or let it "
      "take one penstock::Tensors");
}

void check_network(const Network& network) {
  if (network.layers.empty()) throw bad_input("a network of no layers", "at least one", "fill Network::layers");
  if (!network.loss)
    throw bad_input("a network without a loss", "a function of outputs and targets", "set Network::loss");
  const auto layers = static_cast<std::int64_t>(network.layers.size());
  for (const Skip& skip : network.skips) {
    if (skip.from < -1 || skip.from >= layers || skip.to < 0 || skip.to >= layers || skip.output < 0)
      throw bad_input(fmt::format("a skip of output {} of layer {} to layer {}", skip.output, skip.from, skip.to),
                      fmt::format("layers 0 to {}, or −1 for the network's inputs, and an output from 0", layers - 1),
                      "correct Network::skips");
    if (skip.from >= skip.to)
      throw bad_input(fmt::format("layer {} reads a skip that layer {} writes later", skip.to, skip.from),
                      "a skip from an earlier layer to a later one", "exchange its ends");
  }
  const auto exists = [&](const ParameterAddress& address) { return address.layer >= 0 && address.layer < layers; };
  for (const Tie& tie : network.ties)
    if (!exists(tie.owner) || !exists(tie.copy))
      throw bad_input(fmt::format("a tie of {} with {}", to_text(tie.owner), to_text(tie.copy)),
                      fmt::format("layers 0 to {}", layers - 1), "correct Network::ties");
  static_cast<void>(tie_groups(network.ties));
}

Layer build_layer(const Network& network, std::int64_t layer, std::uint64_t seed, at::Device device) {
  const std::scoped_lock one_at_a_time(construction());
  static const bool reached = (reach_random_operations(), true);
  static_cast<void>(reached);
  const SeededDefaultGenerator seeded(mix_key({seed, initial_weights_key, static_cast<std::uint64_t>(layer)}));
  Layer built = network.layers.at(static_cast<std::size_t>(layer)).build();
  built.module().to(device);
  return built;
}

std::vector<std::int64_t> parameter_counts(const Network& network) {
  std::map<std::string, std::int64_t> known;
  std::vector<std::int64_t> counts;
  for (std::size_t index = 0; index < network.layers.size(); ++index) {
    const std::string& kind = network.layers[index].kind;
    const auto found = kind.empty() ? known.end() : known.find(kind);
    if (found != known.end()) {
      counts.push_back(found->second);
      continue;
    }
    const Layer layer = build_layer(network, static_cast<std::int64_t>(index), 0, at::kCPU);
    std::int64_t count = 0;
    // One that has several names within the layer is one.
    std::set<const void*> counted;
    for (const auto& parameter : layer.module().parameters())
      if (counted.insert(parameter.unsafeGetTensorImpl()).second) count += parameter.numel();
    counts.push_back(count);
    if (!kind.empty()) known.emplace(kind, count);
  }
  return counts;
}

}  // namespace penstock
