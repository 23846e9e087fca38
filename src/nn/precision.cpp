#include "penstock/nn/precision.h"

#include <ATen/autocast_mode.h>

namespace penstock {

PrecisionScope::PrecisionScope(Precision precision, at::Device device)
    : active_(precision != Precision::Float32), type_(device.type()) {
  if (!active_) return;
  was_enabled_ = at::autocast::is_autocast_enabled(type_);
  was_caching_ = at::autocast::is_autocast_cache_enabled();
  at::autocast::set_autocast_enabled(type_, true);
  at::autocast::set_autocast_dtype(type_, precision == Precision::BFloat16 ? at::kBFloat16 : at::kHalf);
  at::autocast::set_autocast_cache_enabled(false);
}

PrecisionScope::~PrecisionScope() {
  if (!active_) return;
  at::autocast::set_autocast_enabled(type_, was_enabled_);
  at::autocast::set_autocast_cache_enabled(was_caching_);
}

}  // namespace penstock
