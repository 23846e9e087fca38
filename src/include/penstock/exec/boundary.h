/// \file
/// Boundaries on their way between ranks: in the layers' own types, or float32 sent as bfloat16.
#pragma once

#include "penstock/base/types.h"
#include "penstock/nn/layer.h"

namespace penstock {

/// What is sent of a boundary: its float32 tensors as bfloat16, leaves that require a gradient where they did, and
/// behind them one of bytes that says which these are. All other tensors as they are; any may be undefined.
[[nodiscard]] Tensors narrowed(Tensors boundary);

/// The boundary again, on `device`, from what `narrowed` has made of it.
[[nodiscard]] Tensors widened(Tensors message, at::Device device);

}  // namespace penstock
