/// \file
/// Boundaries on their way between ranks: in the layers' own types, or float32 sent as bfloat16.
#pragma once

#include <cstdint>

#include "penstock/nn/layer.h"

namespace penstock {

/// In which type the float32 tensors of a boundary, activations and gradients, travel from rank to rank. Between two
/// stages of one rank nothing travels, and nothing is converted.
enum class BoundaryDtype : std::uint8_t {
  Same,      ///< as the layers returned them
  BFloat16,  ///< half the bytes; rounded to the nearest of 8 bits of precision, so that the numbers depend on the cut
};

/// What is sent of a boundary: its float32 tensors as bfloat16, leaves that require a gradient where they did, and
/// behind them one of bytes that says which these are. All other tensors as they are; any may be undefined.
[[nodiscard]] Tensors narrowed(Tensors boundary);

/// The boundary, on `device`, of what `narrowed` has made of it.
[[nodiscard]] Tensors widened(Tensors message, at::Device device);

}  // namespace penstock
