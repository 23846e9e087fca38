/// \file
/// In which precision layers compute.
///
/// A `Pipeline` has a setting for it. For a layer outside of one:
///
///     const penstock::PrecisionScope scope(penstock::Precision::BFloat16, at::kCPU);
///     const penstock::Tensors outputs = layer.forward(inputs);
#pragma once

#include <c10/core/Device.h>

#include "penstock/base/types.h"

namespace penstock {

/// While it lives, what this thread computes on `device` runs under autocast; nothing changes for Float32. libtorch's
/// cache of converted weights, which all threads share, is off: it would make numbers depend on what other ranks do.
class PrecisionScope {
 public:
  PrecisionScope(Precision precision, at::Device device);
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;
  PrecisionScope(PrecisionScope&&) = delete;
  PrecisionScope& operator=(PrecisionScope&&) = delete;
  ~PrecisionScope();

 private:
  bool active_;
  c10::DeviceType type_;
  bool was_enabled_ = false;
  bool was_caching_ = false;
};

}  // namespace penstock
