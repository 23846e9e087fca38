#include "models/published_tensors.h"

#include <fmt/format.h>
#include <set>
#include <string_view>

#include <ATen/ATen.h>

#include "models/adapters.h"
#include "models/names.h"

namespace penstock {

at::Tensor rows_of(const at::Tensor& parameter, std::int64_t first, std::int64_t rows) {
  const at::Tensor flat = parameter.dim() == 1 ? parameter : parameter.view({-1, parameter.size(-1)});
  return flat.narrow(0, first, rows);
}

std::vector<PublishedTensor> published_tensors(const ModelConfig& model) {
  std::vector<PublishedTensor> tensors;
  std::set<std::string> known;
  for (std::int64_t layer = 0; layer < model.decoder.layers + 2; ++layer)
    for (const LayerWeight& weight : weights_of_layer(model, layer))
      for (const WeightPiece& piece : weight.pieces)
        if (known.insert(piece.name).second)
          tensors.push_back({piece.name, piece.shape, fmt::format("layers.{}.{}", layer, weight.name), piece.first_row,
                             piece.rows, piece.transposed});
  return tensors;
}

std::vector<PublishedAdapter> published_adapters(const ModelConfig& model) {
  constexpr std::string_view suffix = ".weight";
  std::vector<PublishedAdapter> adapters;
  if (!model.decoder.lora) return adapters;
  for (std::int64_t layer = 1; layer <= model.decoder.layers; ++layer)
    for (const LayerWeight& weight : weights_of_layer(model, layer))
      for (const WeightPiece& piece : weight.pieces) {
        if (weight.shape.size() != 2 || !weight.name.ends_with(suffix)) continue;
        const std::string module = piece.name.substr(0, piece.name.size() - suffix.size());
        const std::string part = module.substr(module.rfind('.') + 1);
        if (!is_target(*model.decoder.lora, part)) continue;
        const std::string ours = weight.name.substr(0, weight.name.size() - suffix.size());
        adapters.push_back({module, fmt::format("layers.{}.{}.{}_lora", layer, ours, part), weight.shape[1], piece.rows,
                            piece.transposed});
      }
  return adapters;
}

at::Tensor published_part(const PublishedTensor& tensor, const at::Tensor& source) {
  const at::Tensor rows = rows_of(source, tensor.first_row, tensor.rows);
  return (tensor.transposed ? rows.t() : rows).contiguous();
}

}  // namespace penstock
