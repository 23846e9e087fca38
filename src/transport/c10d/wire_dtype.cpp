#include "transport/c10d/wire_dtype.h"

#include <array>
#include <fmt/format.h>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

constexpr std::array<std::pair<WireDtype, at::ScalarType>, 10> types{{{WireDtype::UInt8, at::kByte},
                                                                      {WireDtype::Int8, at::kChar},
                                                                      {WireDtype::Int16, at::kShort},
                                                                      {WireDtype::Int32, at::kInt},
                                                                      {WireDtype::Int64, at::kLong},
                                                                      {WireDtype::Float16, at::kHalf},
                                                                      {WireDtype::Float32, at::kFloat},
                                                                      {WireDtype::Float64, at::kDouble},
                                                                      {WireDtype::Bool, at::kBool},
                                                                      {WireDtype::BFloat16, at::kBFloat16}}};

}  // namespace

at::ScalarType scalar_type_of(WireDtype dtype) {
  for (const auto& [wire, scalar] : types)
    if (wire == dtype) return scalar;
  check_invariant(false, "a defined tensor has a dtype");
  return at::kByte;
}

TensorLayout layout_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  if (tensor.layout() != at::kStrided || static_cast<std::size_t>(tensor.dim()) > most_dimensions)
    throw bad_input(fmt::format("a tensor of {} dimensions", tensor.dim()),
                    fmt::format("a dense tensor of at most {} dimensions between processes", most_dimensions),
                    "reshape it in the layer that returns it");
  for (const auto& [wire, scalar] : types)
    if (scalar == tensor.scalar_type()) return {wire, tensor.sizes().vec(), tensor.requires_grad()};
  throw bad_input(fmt::format("a tensor of {}", c10::toString(tensor.scalar_type())),
                  "an integer, a float of 16 to 64 bits or bool between processes", "convert it in the layer");
}

}  // namespace penstock
