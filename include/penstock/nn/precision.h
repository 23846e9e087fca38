/// \file
/// In which precision layers compute.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

namespace penstock {

/// Weights, their gradients and the optimizer stay in float32 in all of them.
enum class Precision : std::uint8_t {
  Float32,
  BFloat16,  ///< libtorch's autocast: matrix products in bfloat16, what is sensitive in float32
  Float16,   ///< the same in float16, whose small range wants a scaled loss
};

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
