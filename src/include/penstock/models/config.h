/// \file
/// Which decoder the folder of a published model holds: its config.json, in Hugging Face's form. Free of libtorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "penstock/base/types.h"
#include "penstock/models/decoder_settings.h"

namespace penstock {

/// The families of published models that are known: what config.json calls `model_type`.
enum class ModelFamily : std::uint8_t { Gpt2, Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen3Moe };

/// The words of families.
template <>
struct KindWords<ModelFamily> {
  static constexpr std::array<KindWord<ModelFamily>, 7> all{{{ModelFamily::Gpt2, "gpt2"},
                                                             {ModelFamily::Llama, "llama"},
                                                             {ModelFamily::Mistral, "mistral"},
                                                             {ModelFamily::Mixtral, "mixtral"},
                                                             {ModelFamily::Qwen2, "qwen2"},
                                                             {ModelFamily::Qwen3, "qwen3"},
                                                             {ModelFamily::Qwen3Moe, "qwen3_moe"}}};
};

/// A published model: what it is made of, and by whose names its weights go.
struct ModelConfig {
  ModelFamily family = ModelFamily::Llama;
  DecoderSettings decoder;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// What makes one model another, for people and to be compared: its family and its decoder.
[[nodiscard]] std::string shape_text(const ModelConfig& model);

/// The file of that name within a model's folder.
inline constexpr const char* config_file = "config.json";

/// Reads `folder`/config.json. Values that are not there are those that transformers takes for them. Probabilities of
/// dropout are not read: they belong to a training.
/// \throws Error (BadInput) that names the file and the value: no such file, no JSON, an unknown `model_type` (with
/// those that are known), a size that is missing or out of range, and an activation, scaling of positions or other part
/// that is not supported, by its name.
[[nodiscard]] ModelConfig read_config(const std::filesystem::path& folder);

/// The same from the text of such a file. \param source names it in messages.
[[nodiscard]] ModelConfig parse_config(const std::string& text, const std::string& source);

}  // namespace penstock
