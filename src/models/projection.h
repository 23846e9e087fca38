// A matrix product with or without a bias, and with adapters beside its matrix where they are asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <torch/nn/module.h>

#include "penstock/models/decoder_settings.h"

#include "models/initial.h"

namespace penstock {

// Rows of the matrix that published models keep as a matrix of their own, under a name of their own.
struct ProjectionPart {
  std::string name;
  std::int64_t rows = 0;
};

class Projection : public torch::nn::Module {
 public:
  // \param parts all rows, in order. \param lora none, or adapters for those parts that it names.
  Projection(std::int64_t in, const std::vector<ProjectionPart>& parts, bool bias, double deviation,
             const std::optional<LoraSettings>& lora, const Initial& initial);

  // [..., in] to [..., rows]
  at::Tensor forward(const at::Tensor& input);

  [[nodiscard]] const at::Tensor& weight() const { return weight_; }

 private:
  struct Adapter {
    at::Tensor narrow;  // [rank, in]
    at::Tensor widen;   // [rows of the part, rank]
  };
  struct Part {
    std::int64_t rows = 0;
    std::optional<Adapter> adapter;
  };

  at::Tensor weight_;
  at::Tensor bias_;
  std::vector<Part> parts_;  // empty: no adapters
  double scale_ = 0;
};

}  // namespace penstock
