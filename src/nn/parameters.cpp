#include "penstock/nn/parameters.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>

namespace penstock {

std::vector<ModuleParameter> parameters_of(const Layer& layer) {
  std::vector<ModuleParameter> parameters;
  std::map<const void*, std::size_t> places;
  for (const auto& parameter : layer.module().named_parameters()) {
    const auto [place, is_new] = places.emplace(parameter.value().unsafeGetTensorImpl(), parameters.size());
    if (is_new)
      parameters.push_back({{parameter.key()}, parameter.value()});
    else
      parameters[place->second].names.push_back(parameter.key());
  }
  return parameters;
}

std::vector<std::shared_ptr<DeferredBatchNorm>> batch_norms_of(const Layer& layer) {
  std::vector<std::shared_ptr<DeferredBatchNorm>> norms;
  for (const auto& module : layer.module().modules()) {
    auto norm = std::dynamic_pointer_cast<DeferredBatchNorm>(module);
    if (norm != nullptr && std::find(norms.begin(), norms.end(), norm) == norms.end()) norms.push_back(std::move(norm));
  }
  return norms;
}

}  // namespace penstock
