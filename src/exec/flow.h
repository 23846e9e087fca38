// What flows through a stage's layers: the chain, in which each layer takes what the one before it returned, and the
// skips that pass layers by.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <vector>

#include "penstock/nn/layer.h"

namespace penstock {

// A tensor that a skip reads: which layer wrote it, and as which of its outputs.
struct SkippedTensor {
  std::int64_t from = 0;
  std::int64_t output = 0;

  friend auto operator<=>(const SkippedTensor&, const SkippedTensor&) = default;
};

// The skipped tensors that cross the boundary in front of `layer` beside the chain, ascending: each once, however many
// layers behind the boundary read it. What the layer right before the boundary wrote crosses it in the chain.
[[nodiscard]] std::vector<SkippedTensor> carried_across(const std::vector<Skip>& skips, std::int64_t layer);

// One microbatch's tensors on their way through some layers in a row.
//
// Gradients add up in the same order under any cut because each reader of a tensor that has several takes it through an
// alias: autograd first sums what that reader sends back, and then adds the readers, the last first. A cut between two
// readers hands over the sum of those behind it, which is what the ones before it are added to in any case.
class Flow {
 public:
  // `boundary` holds the chain and then `carried_across(skips, first_layer)`. `skips` must outlive the flow.
  // Throws Error (RunFailed) where a skip names an output that its layer did not return.
  Flow(const std::vector<Skip>& skips, std::int64_t first_layer, Tensors boundary);

  // What `layer` takes: the chain, then its skips. Layers come in order, each once.
  [[nodiscard]] Tensors inputs_of(std::int64_t layer);
  void put_outputs_of(std::int64_t layer, Tensors outputs);

  // The chain and what is carried across the boundary in front of `next_layer`.
  [[nodiscard]] Tensors boundary(std::int64_t next_layer) &&;

 private:
  void keep_skipped(std::int64_t layer);

  const std::vector<Skip>& skips_;
  Tensors chain_;
  std::map<SkippedTensor, at::Tensor> skipped_;
};

}  // namespace penstock
