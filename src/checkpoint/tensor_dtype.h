/// \file
/// Which libtorch type stands for which type of a safetensors file.
#pragma once

#include <optional>

#include <c10/core/ScalarType.h>

#include "checkpoint/safetensors_header.h"

namespace penstock {

/// Nothing where safetensors has no such type.
[[nodiscard]] std::optional<SafetensorsDtype> safetensors_dtype(c10::ScalarType type);

[[nodiscard]] c10::ScalarType scalar_type(SafetensorsDtype dtype);

}  // namespace penstock
