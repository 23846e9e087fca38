#include "checkpoint/tensor_dtype.h"

#include <algorithm>
#include <array>
#include <utility>

#include "penstock/base/error.h"

namespace penstock {
namespace {

using Row = std::pair<SafetensorsDtype, c10::ScalarType>;

constexpr std::array<Row, 16> rows = {{{SafetensorsDtype::Bool, c10::ScalarType::Bool},
                                       {SafetensorsDtype::U8, c10::ScalarType::Byte},
                                       {SafetensorsDtype::I8, c10::ScalarType::Char},
                                       {SafetensorsDtype::F8E4M3, c10::ScalarType::Float8_e4m3fn},
                                       {SafetensorsDtype::F8E5M2, c10::ScalarType::Float8_e5m2},
                                       {SafetensorsDtype::U16, c10::ScalarType::UInt16},
                                       {SafetensorsDtype::I16, c10::ScalarType::Short},
                                       {SafetensorsDtype::F16, c10::ScalarType::Half},
                                       {SafetensorsDtype::BF16, c10::ScalarType::BFloat16},
                                       {SafetensorsDtype::U32, c10::ScalarType::UInt32},
                                       {SafetensorsDtype::I32, c10::ScalarType::Int},
                                       {SafetensorsDtype::F32, c10::ScalarType::Float},
                                       {SafetensorsDtype::U64, c10::ScalarType::UInt64},
                                       {SafetensorsDtype::I64, c10::ScalarType::Long},
                                       {SafetensorsDtype::F64, c10::ScalarType::Double},
                                       {SafetensorsDtype::C64, c10::ScalarType::ComplexFloat}}};

}  // namespace

std::optional<SafetensorsDtype> safetensors_dtype(c10::ScalarType type) {
  const auto* const row = std::ranges::find(rows, type, &Row::second);
  if (row == rows.end()) return std::nullopt;
  return row->first;
}

c10::ScalarType scalar_type(SafetensorsDtype dtype) {
  const auto* const row = std::ranges::find(rows, dtype, &Row::first);
  check_invariant(row != rows.end(), "every safetensors dtype has a libtorch type");
  return row->second;
}

}  // namespace penstock
