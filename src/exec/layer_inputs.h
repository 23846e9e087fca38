// What a layer is given. Layers get their inputs as values: if a layer changes one in place, nobody else sees it, so
// that the layer computes the same whether its input came from another rank, is kept for recomputation, or is read by
// others.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include <c10/util/FunctionRef.h>

#include "penstock/nn/layer.h"
#include "penstock/nn/versions.h"

namespace penstock {

// One layer's inputs. In a layer's first pass, of training and of evaluation, it finds out which of them the layer
// changes: in later passes the layer gets copies of those, and all others as they are. Belongs to the rank's thread.
class LayerInputs {
 public:
  using Forward = c10::function_ref<Tensors(const Tensors& inputs)>;

  // Runs `forward` on `inputs`, which are unchanged afterwards. In a first pass that changes an input it runs `forward`
  // twice, the second time within a `RecomputeScope`, with the buffers of before. `forward` must draw the same numbers
  // both times. Throws Error (BadInput) if a first pass changes both an input and a parameter, or a later one an input
  // that the first had left alone; whatever `forward` throws.
  [[nodiscard]] Tensors run(const Layer& layer, const Tensors& inputs, Forward forward);

  // Whether the layer changes any input, in training or evaluation, as far as is known.
  [[nodiscard]] bool changes_any() const;

 private:
  using Changes = std::vector<bool>;  // by input
  [[nodiscard]] Tensors first_pass(const Layer& layer, const Tensors& inputs, Forward forward, Changes& changes) const;
  [[nodiscard]] static Tensors pass(const Tensors& inputs, Forward forward, const Changes& changes);

  std::array<std::optional<Changes>, 2> changes_;  // in evaluation, in training
};

}  // namespace penstock
