/// \file
/// The weights of a published model in a folder: `model.safetensors`, or several files with their index.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/nn/module.h>

#include "penstock/checkpoint/safetensors.h"
#include "penstock/models/config.h"

namespace penstock {

/// Weights that have been opened and checked, and of which nothing has been read. Any number of threads may read.
class ModelWeights {
 public:
  /// Reads the headers of all files. \throws Error (BadInput) where a file is missing or damaged, in one message for
  /// all tensors that are missing, that the model has no place for, or that are of another shape or type, and where the
  /// files have a head of a tied model that is not its embedding.
  ModelWeights(const std::filesystem::path& folder, ModelConfig model);

  /// Fills the parameters of one layer of `make_decoder`'s network, converted to their own type. Beside them it holds
  /// one tensor of the files at a time.
  /// \throws Error (BadInput) where a file can no longer be read.
  void fill(std::int64_t layer, torch::nn::Module& module) const;

 private:
  struct Place {
    std::size_t file = 0;
    std::string name;  // in the file
  };
  void open(const std::filesystem::path& folder);
  void check(const std::filesystem::path& folder) const;
  void check_tied_head(const std::filesystem::path& folder) const;
  [[nodiscard]] at::Tensor read(const std::string& name) const;

  ModelConfig model_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place> places_;  // by the name that transformers writes
};

/// Whether the folder holds weights, whole or not.
[[nodiscard]] bool has_weights(const std::filesystem::path& folder);

}  // namespace penstock
