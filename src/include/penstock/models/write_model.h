/// \file
/// Folders of published models, written from the parameters of a checkpoint: the counterpart of weights.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "penstock/base/types.h"
#include "penstock/checkpoint/checkpoint.h"
#include "penstock/models/config.h"

namespace penstock {

/// What was written.
struct WrittenModel {
  std::int64_t tensors = 0;
  std::int64_t files = 0;  ///< of weights
  Bytes bytes;             ///< of weights

  friend bool operator==(const WrittenModel&, const WrittenModel&) = default;
};

/// Writes the parameters of `make_decoder`'s network under the names of the model's family: safetensors files, their
/// index if there are several, config.json with the type of the weights, and the files of the tokenizer. Adapters are
/// added to the weights that they adapt. One tensor of the checkpoint is held at a time. All is on the disk when this
/// returns.
/// \param folder is there, and empty.
/// \param model_files the folder that config.json and the tokenizer are copied from (`carry_model_files`).
/// \param reader a checkpoint of that model, of any number of stages.
/// \param precision of the weights; Float32 keeps every bit of them.
/// \param max_shard_size most bytes of weights in a file, at least 1; one tensor may have more.
/// \throws Error (BadInput) if the checkpoint lacks a parameter; (RunFailed) if it cannot be
/// written.
WrittenModel write_model(const std::filesystem::path& folder, const ModelConfig& model,
                         const std::filesystem::path& model_files, const CheckpointReader& reader, Precision precision,
                         Bytes max_shard_size);

/// Writes the adapters alone, as the package PEFT does: adapter_model.safetensors and adapter_config.json.
/// \param model one with adapters (`DecoderSettings::lora`).
/// \param base the folder or name of the model that they adapt, as adapter_config.json says it.
/// \throws Error as `write_model`.
WrittenModel write_adapters(const std::filesystem::path& folder, const ModelConfig& model, const std::string& base,
                            const CheckpointReader& reader, Precision precision);

/// Copies what belongs to a model but its weights from one folder to another, which is made: config.json, the files of
/// the tokenizer, and others of that size that are known by name. \throws Error (RunFailed) if it cannot be written.
void carry_model_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace penstock
