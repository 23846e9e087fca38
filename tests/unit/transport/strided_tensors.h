// Tensors that lie in memory in every way that there is, for the tests of what must keep it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

namespace penstock {

// Of the dtypes that any arithmetic is defined for: `numbers` counts up in its memory's order.
inline std::vector<std::pair<std::string, at::Tensor>> tensors_of_all_layouts(at::ScalarType dtype) {
  const auto numbers = [dtype](const std::vector<std::int64_t>& sizes) {
    const std::int64_t count = c10::multiply_integers(sizes);
    return (at::arange(count, at::kLong) * 7 % 100 + 1).to(dtype).view(sizes);
  };
  return {{"contiguous", numbers({3, 4, 5})},
          {"transposed", numbers({3, 4, 5}).transpose(0, 2)},
          {"transposed, large", numbers({300, 400}).t()},
          {"channels last", numbers({2, 5, 6, 3}).permute({0, 3, 1, 2})},
          {"one channel last", numbers({2, 5, 6, 1}).permute({0, 3, 1, 2})},
          {"strange strides of sizes 1", numbers({6}).as_strided({1, 6}, {77, 1})},
          {"selected", numbers({3, 4, 5}).select(1, 2)},
          {"narrowed", numbers({3, 4, 50}).narrow(2, 1, 47)},
          {"stepped", numbers({3, 40}).slice(1, 1, 39, 3)},
          {"stepped and transposed", numbers({30, 40}).slice(1, 1, 39, 3).t()},
          {"a column, large", numbers({50'000, 3}).select(1, 1)},
          {"with an offset", numbers({3, 4}).slice(0, 1, 3)},
          {"expanded", numbers({4, 1}).expand({2, 4, 5})},
          {"expanded from one", numbers({}).expand({512, 300})},
          {"expanded with gaps", numbers({6, 10}).slice(1, 0, 10, 2).unsqueeze(1).expand({6, 7, 5})},
          {"expanded and transposed", numbers({4, 3}).t().unsqueeze(0).expand({2, 3, 4})},
          {"windows", numbers({50}).unfold(0, 8, 3)},
          {"windows with gaps", numbers({100}).slice(0, 0, 100, 2).unfold(0, 8, 3)},
          {"windows of expanded rows", numbers({1, 50}).expand({3, 50}).unfold(1, 8, 3)},
          {"overlapping in every direction", numbers({20}).as_strided({3, 4, 2}, {2, 3, 1}, 4)},
          {"of no dimension", numbers({})},
          {"of no dimension, inside another", numbers({5}).select(0, 3)},
          {"empty", numbers({0, 5})},
          {"empty and transposed", numbers({4, 0, 5}).transpose(0, 2)},
          {"an empty slice", numbers({4, 6}).slice(1, 2, 2)}};
}

// What lies in a tensor, whatever its dtype: equal bytes, so that a NaN equals itself.
inline bool same_bytes(const at::Tensor& one, const at::Tensor& other) {
  const auto bytes = [](const at::Tensor& tensor) {
    return tensor.detach().resolve_conj().resolve_neg().contiguous().view({-1}).view(at::kByte);
  };
  return one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type() &&
         (one.numel() == 0 || at::equal(bytes(one), bytes(other)));
}

}  // namespace penstock
