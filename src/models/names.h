// By which names the weights of published models go, and where they lie in ours. Free of libtorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/models/config.h"

namespace penstock {

// A published tensor within one of ours: so many rows of it, where ours counts as a matrix of rows of its last
// dimension, or of single elements where it has one dimension.
struct WeightPiece {
  std::string name;
  std::vector<std::int64_t> shape;
  bool transposed = false;  // it is kept with rows and columns exchanged
  std::int64_t first_row = 0;
  std::int64_t rows = 0;

  friend bool operator==(const WeightPiece&, const WeightPiece&) = default;
};

// A parameter of a layer, which its pieces fill.
struct LayerWeight {
  std::string name;  // within the layer: "attention.qkv.weight"
  std::vector<std::int64_t> shape;
  std::vector<WeightPiece> pieces;

  friend bool operator==(const LayerWeight&, const LayerWeight&) = default;
};

// The weights of one layer of `make_decoder`'s network, as transformers writes them.
[[nodiscard]] std::vector<LayerWeight> weights_of_layer(const ModelConfig& model, std::int64_t layer);

// Whether a tensor of that name may be there too, and says nothing new: tables and masks that older files have, and
// the head of a tied model.
[[nodiscard]] bool may_be_ignored(const ModelConfig& model, const std::string& name);

}  // namespace penstock
