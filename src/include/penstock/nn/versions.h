/// \file
/// How often tensors have been changed in place, as autograd counts it.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

namespace penstock {

/// By tensor.
using Versions = c10::SmallVector<std::uint32_t, 8>;

/// 0 for an undefined tensor, and for one of inference mode, which has no count. Thread-safe.
[[nodiscard]] inline std::uint32_t version_of(const at::Tensor& tensor) {
  return tensor.defined() && !tensor.is_inference() ? static_cast<std::uint32_t>(tensor._version()) : 0;
}

/// `version_of` each. Thread-safe.
[[nodiscard]] inline Versions versions_of(const std::vector<at::Tensor>& tensors) {
  Versions versions;
  versions.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) versions.push_back(version_of(tensor));
  return versions;
}

}  // namespace penstock
