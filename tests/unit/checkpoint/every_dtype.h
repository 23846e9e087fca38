/// \file
/// Tensors of every type that a safetensors file can hold.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "penstock/checkpoint/safetensors.h"

namespace penstock {

/// One tensor of every type that the layout has, with values at the ends of its range.
inline std::vector<NamedTensor> every_dtype() {
  std::vector<NamedTensor> tensors;
  for (const at::ScalarType type :
       {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf, at::kBFloat16, at::kFloat,
        at::kDouble, at::kUInt16, at::kUInt32, at::kUInt64, at::kFloat8_e4m3fn, at::kFloat8_e5m2, at::kComplexFloat})
    tensors.push_back({std::string("t.") + c10::toString(type), at::tensor({0, 1, 2, 100}).view({2, 2}).to(type)});
  tensors.push_back({"extremes", at::tensor({std::numeric_limits<double>::denorm_min(), -0.0,
                                             std::numeric_limits<double>::infinity()})});
  return tensors;
}

}  // namespace penstock
