#include "models/chunked_loss.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace penstock {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t ignored_class = -100;

// Calls `visit(first row, rows)` for one chunk after the other.
template <class Visit>
void for_each_chunk(std::int64_t rows, std::int64_t at_once, const Visit& visit) {
  for (std::int64_t first = 0; first < rows; first += at_once) visit(first, std::min(at_once, rows - first));
}

at::Tensor logits_of(const at::Tensor& hidden, const at::Tensor& matrix) {
  return at::linear(hidden, matrix).to(at::kFloat);
}

// The gradient of the sum of the cross entropies with respect to the logits, in the place of these.
at::Tensor gradient_of(const at::Tensor& logits, const at::Tensor& target, const at::Tensor& sum_gradient) {
  const at::Tensor gradient = at::softmax(logits, -1);
  const at::Tensor counts = target.ne(ignored_class).unsqueeze(-1);
  const at::Tensor classes = target.clamp_min(0).unsqueeze(-1);
  gradient.scatter_add_(-1, classes, at::full({}, -1, gradient.options()).expand_as(classes));
  return gradient.mul_(counts).mul_(sum_gradient);
}

class ChunkedCrossEntropy : public torch::autograd::Function<ChunkedCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& matrix,
                            const at::Tensor& target, std::int64_t rows_at_once) {
    at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kFloat));
    for_each_chunk(hidden.size(0), rows_at_once, [&](std::int64_t first, std::int64_t rows) {
      sum += at::cross_entropy_loss(logits_of(hidden.narrow(0, first, rows), matrix), target.narrow(0, first, rows), {},
                                    at::Reduction::Sum, ignored_class);
    });
    context->save_for_backward({hidden, matrix, target});
    context->saved_data["rows_at_once"] = rows_at_once;
    return sum;
  }

  // Where the backward is divided, each part makes what it is asked for.
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& hidden = saved[0];
    const at::Tensor& matrix = saved[1];
    at::Tensor hidden_gradient = context->needs_input_grad(0) ? at::empty_like(hidden) : at::Tensor();
    at::Tensor matrix_gradient = context->needs_input_grad(1) ? at::zeros_like(matrix) : at::Tensor();
    const auto at_once = context->saved_data["rows_at_once"].toInt();
    for_each_chunk(hidden.size(0), at_once, [&](std::int64_t first, std::int64_t rows) {
      const at::Tensor part = hidden.narrow(0, first, rows);
      const at::Tensor logits_gradient =
          gradient_of(logits_of(part, matrix), saved[2].narrow(0, first, rows), gradients[0]).to(hidden.scalar_type());
      if (hidden_gradient.defined()) hidden_gradient.narrow(0, first, rows).copy_(at::mm(logits_gradient, matrix));
      if (matrix_gradient.defined()) matrix_gradient.addmm_(logits_gradient.t(), part);
    });
    return {hidden_gradient, matrix_gradient, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& matrix, const at::Tensor& target,
                                 std::int64_t rows_at_once) {
  return ChunkedCrossEntropy::apply(hidden, matrix, target, rows_at_once);
}

}  // namespace penstock
