// The tensors of a published model as parts of the parameters of ours.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "penstock/models/config.h"

namespace penstock {

// A tensor of a published model: its name, and how it is made of a parameter of `make_decoder`'s network.
struct PublishedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string source;  // the parameter of ours that it is a part of: "layers.1.attention.qkv.weight"
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  bool transposed = false;
};

// All of them, in the order of the layers; those of one source stand together.
[[nodiscard]] std::vector<PublishedTensor> published_tensors(const ModelConfig& model);

// An adapter of a network that has adapters, as the package PEFT names it: "model.layers.0.self_attn.q_proj".
struct PublishedAdapter {
  std::string module;
  std::string source;  // our parameters' name without `_a` and `_b`: "layers.1.attention.qkv.q_proj_lora"
  std::int64_t in = 0;
  std::int64_t out = 0;
  bool transposed = false;  // whether the published matrix is [in, out]
};

// All of them, in the order of the layers.
[[nodiscard]] std::vector<PublishedAdapter> published_adapters(const ModelConfig& model);

// One of the tensors, taken out of its source.
[[nodiscard]] at::Tensor published_part(const PublishedTensor& tensor, const at::Tensor& source);

// The rows of a parameter as a matrix of rows of its last dimension; of a vector, its elements.
[[nodiscard]] at::Tensor rows_of(const at::Tensor& parameter, std::int64_t first, std::int64_t rows);

}  // namespace penstock
