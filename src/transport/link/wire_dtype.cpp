#include "transport/link/wire_dtype.h"

#include <array>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"
#include "penstock/transport/layout.h"

namespace penstock {
namespace {

constexpr auto types = std::to_array<std::pair<WireDtype, at::ScalarType>>(
    {{WireDtype::UInt8, at::ScalarType::Byte},
     {WireDtype::Int8, at::ScalarType::Char},
     {WireDtype::Int16, at::ScalarType::Short},
     {WireDtype::Int32, at::ScalarType::Int},
     {WireDtype::Int64, at::ScalarType::Long},
     {WireDtype::Float16, at::ScalarType::Half},
     {WireDtype::Float32, at::ScalarType::Float},
     {WireDtype::Float64, at::ScalarType::Double},
     {WireDtype::Bool, at::ScalarType::Bool},
     {WireDtype::BFloat16, at::ScalarType::BFloat16},
     {WireDtype::Complex32, at::ScalarType::ComplexHalf},
     {WireDtype::Complex64, at::ScalarType::ComplexFloat},
     {WireDtype::Complex128, at::ScalarType::ComplexDouble},
     {WireDtype::UInt16, at::ScalarType::UInt16},
     {WireDtype::UInt32, at::ScalarType::UInt32},
     {WireDtype::UInt64, at::ScalarType::UInt64},
     {WireDtype::Float8E5M2, at::ScalarType::Float8_e5m2},
     {WireDtype::Float8E4M3FN, at::ScalarType::Float8_e4m3fn},
     {WireDtype::Float8E5M2FNUZ, at::ScalarType::Float8_e5m2fnuz},
     {WireDtype::Float8E4M3FNUZ, at::ScalarType::Float8_e4m3fnuz},
     {WireDtype::Float8E8M0FNU, at::ScalarType::Float8_e8m0fnu},
     {WireDtype::Float4E2M1FNX2, at::ScalarType::Float4_e2m1fn_x2}});

}  // namespace

at::ScalarType scalar_type_of(WireDtype dtype) {
  for (const auto& [wire, scalar] : types)
    if (wire == dtype) return scalar;
  check_invariant(false, "a defined tensor has a dtype");
  return at::kByte;
}

TensorLayout layout_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  check_is_plain_memory(tensor);
  for (const auto& [wire, scalar] : types) {
    if (scalar != tensor.scalar_type()) continue;
    TensorLayout layout{wire, tensor.sizes().vec(), tensor.requires_grad(), false, {}};
    if (!are_default_strides(tensor.sizes(), tensor.strides())) layout.strides = tensor.strides().vec();
    return layout;
  }
  throw bad_input(fmt::format("a tensor of {}", c10::toString(tensor.scalar_type())),
                  "integers, floating or complex numbers or bool between processes", "convert it in the layer");
}

}  // namespace penstock
