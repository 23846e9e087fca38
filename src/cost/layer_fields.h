/// \file
/// The fields of a layer's cost by the keys of the JSON form: one table for reading, writing and checking.
#pragma once

#include <array>

#include "penstock/cost/cost.h"

namespace penstock {

/// "forward": `forward_ms` and `forward_spread_ms`.
struct LayerTimeField {
  const char* key;
  MeasuredTime LayerAtSize::* member;
};

/// Sizes that depend on the microbatch.
struct LayerSizeField {
  const char* key;
  Bytes LayerAtSize::* member;
};

/// Sizes that do not.
struct LayerFixedField {
  const char* key;
  Bytes LayerCost::* member;
};

inline constexpr std::array<LayerTimeField, 3> layer_time_fields = {{
    {"forward", &LayerAtSize::forward},
    {"input_backward", &LayerAtSize::input_backward},
    {"weight_backward", &LayerAtSize::weight_backward},
}};

inline constexpr std::array<LayerSizeField, 11> layer_size_fields = {{
    {"activation_bytes", &LayerAtSize::activation},
    {"boundary_bytes", &LayerAtSize::boundary},
    {"forward_workspace_bytes", &LayerAtSize::forward_workspace},
    {"backward_workspace_bytes", &LayerAtSize::backward_workspace},
    {"kept_output_bytes", &LayerAtSize::kept_output},
    {"inner_workspace_bytes", &LayerAtSize::inner_workspace},
    {"input_workspace_bytes", &LayerAtSize::input_workspace},
    {"inner_input_workspace_bytes", &LayerAtSize::inner_input_workspace},
    {"deferred_bytes", &LayerAtSize::deferred},
    {"inner_deferred_bytes", &LayerAtSize::inner_deferred},
    {"weight_workspace_bytes", &LayerAtSize::weight_workspace},
}};

inline constexpr std::array<LayerFixedField, 3> layer_fixed_fields = {{
    {"parameter_bytes", &LayerCost::parameter},
    {"gradient_bytes", &LayerCost::gradient},
    {"optimizer_bytes", &LayerCost::optimizer},
}};

}  // namespace penstock
