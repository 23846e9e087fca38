// The cross entropy of a large vocabulary, of which a part of the logits is there at a time.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace penstock {

// Sum of the cross entropies in nats of `hidden` [rows, width] times `matrix` [vocabulary, width] against the classes
// `target` [rows], of which those that are -100 count for nothing. Logits are made `rows_at_once` rows at a time, and
// made again for the backward: neither they nor their gradients are ever there as a whole. The products are in the type
// of `hidden`, the sum in float32.
[[nodiscard]] at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& matrix,
                                               const at::Tensor& target, std::int64_t rows_at_once);

}  // namespace penstock
