#include "penstock/nn/freeze.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/nn/ties.h"

namespace penstock {
namespace {

void freeze(const Layer& layer, const std::set<std::string>* names) {
  for (auto& parameter : layer.module().named_parameters())
    if (names == nullptr || names->contains(parameter.key())) parameter.value().set_requires_grad(false);
}

}  // namespace

Network with_frozen_layers(Network network, const std::vector<bool>& frozen) {
  const auto is_frozen = [&](std::int64_t layer) {
    return static_cast<std::size_t>(layer) < frozen.size() && frozen[static_cast<std::size_t>(layer)];
  };
  if (std::none_of(frozen.begin(), frozen.end(), [](bool each) { return each; })) return network;
  const auto layers = std::ssize(network.layers);
  bool learns = false;
  for (std::int64_t layer = 0; layer < layers; ++layer) learns = learns || !is_frozen(layer);
  if (!learns) throw bad_input("a network whose layers are all frozen", "one that learns", "shorten `freeze`");
  const std::vector<TieGroup> groups = tie_groups(network.ties);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::set<std::string> tied;
    for (const TieGroup& group : groups)
      if (std::any_of(group.members.begin(), group.members.end(),
                      [&](const ParameterAddress& member) { return is_frozen(member.layer); }))
        for (const ParameterAddress& member : group.members)
          if (member.layer == layer) tied.insert(member.name);
    if (!is_frozen(layer) && tied.empty()) continue;
    LayerSpec& spec = network.layers[static_cast<std::size_t>(layer)];
    // It costs less than one of its kind that learns.
    if (!spec.kind.empty()) spec.kind += " frozen";
    spec.build = [build = std::move(spec.build), whole = is_frozen(layer), tied] {
      Layer built = build();
      freeze(built, whole ? nullptr : &tied);
      return built;
    };
  }
  return network;
}

}  // namespace penstock
