/// \file
/// From a run of a published model back to a folder of such a model. Free of libtorch.
#pragma once

#include <cstdint>
#include <filesystem>

#include "penstock/base/types.h"

namespace penstock {

/// How a model is written.
struct ExportSettings {
  std::filesystem::path output;         ///< a folder that is made; it may be there, and empty
  Bytes max_shard_size{5'000'000'000};  ///< most bytes of weights in a file; one tensor may have more
  Precision type = Precision::Float32;  ///< of the weights; float32 keeps every bit of them
  bool merge = false;                   ///< of a run with adapters: write the model with them in its weights
};

/// What was written.
struct ExportResult {
  std::int64_t step = 0;  ///< of the checkpoint
  std::int64_t tensors = 0;
  std::int64_t files = 0;  ///< of weights
  Bytes bytes;             ///< of weights
};

/// For a run with adapters this writes them as the package PEFT does: adapter_model.safetensors and
/// adapter_config.json. Otherwise, and where they are merged, writes the weights of a run's last whole checkpoint, of
/// any number of stages, under the names of its model's family: safetensors files, their index where there are several,
/// config.json with the type of the weights, and the files of the tokenizer. One tensor of the checkpoint is held at a
/// time. The folder is there when all of it is on the disk.
/// \throws Error (BadInput) for a run of another network than a published model's, without a whole checkpoint, or an
/// output that is there; (RunFailed) where it cannot be written.
ExportResult export_run(const std::filesystem::path& run, const ExportSettings& settings);

}  // namespace penstock
