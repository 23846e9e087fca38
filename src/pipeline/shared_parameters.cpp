#include "pipeline/shared_parameters.h"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/MemoryOverlap.h>

#include "penstock/base/error.h"
#include "penstock/nn/parameters.h"
#include "penstock/nn/ties.h"

namespace penstock {

namespace {

struct PlacedParameter {
  RankId rank;
  ParameterAddress address;
  at::Tensor tensor;
};

struct Extent {
  std::int64_t first = 0;  // element of the storage
  std::int64_t end = 0;
};

Extent extent_of(const at::Tensor& tensor) {
  Extent extent{tensor.storage_offset(), tensor.storage_offset() + 1};
  for (std::int64_t dimension = 0; dimension < tensor.dim(); ++dimension)
    extent.end += (tensor.size(dimension) - 1) * tensor.stride(dimension);
  return extent;
}

// Whether two tensors of one storage have an element in common, also if they interleave.
bool share_elements(const at::Tensor& a, const at::Tensor& b) {
  const Extent extent_a = extent_of(a);
  const Extent extent_b = extent_of(b);
  if (a.scalar_type() != b.scalar_type()) return true;
  if (extent_a.end <= extent_b.first || extent_b.end <= extent_a.first) return false;
  const at::Tensor marks = at::zeros({std::max(extent_a.end, extent_b.end)}, at::kBool);
  marks.as_strided(a.sizes(), a.strides(), a.storage_offset()).fill_(true);
  return marks.as_strided(b.sizes(), b.strides(), b.storage_offset()).any().item<bool>();
}

[[noreturn]] void refuse(const PlacedParameter& first, const PlacedParameter& second) {
  if (first.address == second.address)
    throw bad_input(
        fmt::format("{} is one tensor on ranks {} and {}", to_text(first.address), first.rank.value, second.rank.value),
        "a tensor of its own on every rank that holds the layer", "let LayerSpec::build make a new module every time");
  throw bad_input(fmt::format("{} and {} share their memory", to_text(first.address), to_text(second.address)),
                  "parameters of their own in every place",
                  "let LayerSpec::build make a new module every time, and keep the two equal with Network::ties");
}

void check_parameters(const std::vector<PlacedLayer>& layers) {
  std::map<const void*, std::vector<PlacedParameter>> by_storage;
  for (const PlacedLayer& placed : layers) {
    for (const ModuleParameter& parameter : parameters_of(*placed.built)) {
      const at::Tensor& tensor = parameter.tensor;
      if (!tensor.has_storage() || tensor.numel() == 0) continue;
      PlacedParameter next{placed.rank, {placed.layer, parameter.names.front()}, tensor};
      if (tensor.requires_grad() && at::has_internal_overlap(tensor) == at::MemOverlap::Yes)
        throw bad_input(fmt::format("{} has elements that share their memory", to_text(next.address)),
                        "one place in memory for each element", "register a clone of it");
      std::vector<PlacedParameter>& others = by_storage[tensor.storage().unsafeGetStorageImpl()];
      for (const PlacedParameter& other : others)
        if (share_elements(other.tensor, tensor)) refuse(other, next);
      others.push_back(std::move(next));
    }
  }
}

// Running statistics, for example, which every pass changes.
void check_buffers(const std::vector<PlacedLayer>& layers) {
  std::map<const torch::nn::Module*, PlacedLayer> with_buffers;
  for (const PlacedLayer& placed : layers) {
    for (const auto& module : placed.built->module().modules()) {
      if (module->buffers(/*recurse=*/false).empty()) continue;
      const auto [known, is_new] = with_buffers.emplace(module.get(), placed);
      if (is_new || (known->second.layer == placed.layer && known->second.rank == placed.rank)) continue;
      throw bad_input(fmt::format("layers {} and {} hold one {} with its buffers", known->second.layer, placed.layer,
                                  module->name()),
                      "a module of its own in every layer and on every rank",
                      "let LayerSpec::build make a new module every time");
    }
  }
}

}  // namespace

void refuse_shared_with_others(const Network& network, const std::vector<PlacedLayer>& own) {
  std::vector<PlacedLayer> held;
  std::copy_if(own.begin(), own.end(), std::back_inserter(held),
               [](const PlacedLayer& placed) { return placed.is_held_elsewhere; });
  if (held.empty()) return;
  const auto layers = static_cast<std::int64_t>(network.layers.size());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    if (std::any_of(own.begin(), own.end(), [&](const PlacedLayer& placed) { return placed.layer == layer; })) continue;
    const Layer other = build_layer(network, layer, /*seed=*/0, at::kCPU);
    std::vector<PlacedLayer> together = held;
    together.push_back({held.front().rank, layer, &other});
    refuse_shared_memory(std::move(together));
  }
}

void count_versions_apart(const std::vector<PlacedLayer>& layers) {
  std::map<const void*, std::vector<PlacedParameter>> by_storage;
  for (const PlacedLayer& placed : layers)
    for (const ModuleParameter& parameter : parameters_of(*placed.built))
      if (parameter.tensor.has_storage())
        by_storage[parameter.tensor.storage().unsafeGetStorageImpl()].push_back(
            {placed.rank, {placed.layer, parameter.names.front()}, parameter.tensor});
  for (const auto& [storage, parameters] : by_storage) {
    // Those of one rank keep theirs: whether a layer writes into what another has saved is for autograd to see.
    std::map<RankId, c10::VariableVersion> versions;
    for (const PlacedParameter& parameter : parameters) versions.emplace(parameter.rank, c10::VariableVersion(0));
    if (versions.size() < 2) continue;
    for (const PlacedParameter& parameter : parameters)
      parameter.tensor.unsafeGetTensorImpl()->set_version_counter(versions.at(parameter.rank));
  }
}

void refuse_shared_memory(std::vector<PlacedLayer> layers) {
  std::sort(layers.begin(), layers.end(), [](const PlacedLayer& a, const PlacedLayer& b) {
    return std::tie(a.layer, a.rank) < std::tie(b.layer, b.rank);
  });
  check_parameters(layers);
  check_buffers(layers);
}

}  // namespace penstock
