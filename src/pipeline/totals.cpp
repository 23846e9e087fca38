#include "pipeline/totals.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include <ATen/ATen.h>

#include "penstock/base/index.h"

namespace penstock {

at::Tensor norms_of(const std::vector<at::Tensor>& gradients) {
  std::map<at::ScalarType, std::vector<std::int64_t>> by_dtype;
  for (std::size_t index = 0; index < gradients.size(); ++index)
    by_dtype[gradients[index].scalar_type()].push_back(static_cast<std::int64_t>(index));
  at::Tensor norms = at::empty({std::ssize(gradients)}, gradients.front().options().dtype(at::kDouble));
  for (const auto& [dtype, indices] : by_dtype) {
    std::vector<at::Tensor> alike;
    for (const std::int64_t index : indices) alike.push_back(entry(gradients, index));
    const auto as = at::isReducedFloatingType(dtype) ? std::optional(at::kFloat) : std::nullopt;
    const at::Tensor alike_norms = at::stack(at::_foreach_norm(alike, 2, as)).to(at::kDouble);
    if (by_dtype.size() == 1) return alike_norms;
    norms.index_copy_(0, at::tensor(indices, norms.options().dtype(at::kLong)), alike_norms);
  }
  return norms;
}

Totals sum_totals(const std::vector<std::vector<double>>& by_rank, int microbatches) {
  Totals totals;
  totals.losses.resize(static_cast<std::size_t>(microbatches));
  std::vector<std::array<double, 3>> squares;  // layer, place, square
  for (const std::vector<double>& numbers : by_rank) {
    totals.pace_ms.push_back(numbers[0]);
    const auto losses = static_cast<std::size_t>(numbers[1]);
    for (std::size_t microbatch = 0; microbatch < losses; ++microbatch) {
      totals.losses[microbatch].sum += numbers[2 + microbatch];
      totals.losses[microbatch].weight += numbers[2 + losses + microbatch];
    }
    for (std::size_t next = 2 + 2 * losses; next < numbers.size(); next += 3)
      squares.push_back({numbers[next], numbers[next + 1], numbers[next + 2]});
  }
  std::sort(squares.begin(), squares.end(),
            [](const auto& a, const auto& b) { return std::pair(a[0], a[1]) < std::pair(b[0], b[1]); });
  double sum = 0;
  for (const auto& [layer, place, square] : squares) sum += square;
  for (const MicrobatchLoss& loss : totals.losses) {
    totals.loss_sum += loss.sum;
    totals.weight += loss.weight;
  }
  totals.scaled_norm = std::sqrt(sum);
  return totals;
}

}  // namespace penstock
