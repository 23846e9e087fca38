// By which names the parameters of adapters go. Free of libtorch.
#pragma once

#include <string>

#include "penstock/models/decoder_settings.h"

namespace penstock {

// Behind the name of the part that they adapt: "attention.qkv.q_proj_lora_a", [rank, in], and [rows, rank].
inline constexpr const char* narrow_suffix = "_lora_a";
inline constexpr const char* widen_suffix = "_lora_b";

[[nodiscard]] bool is_target(const LoraSettings& lora, const std::string& part);

// Whether it is a matrix of a gated feed-forward part.
[[nodiscard]] bool is_feed_forward_target(const std::string& part);

// Whether a parameter of that name belongs to an adapter.
[[nodiscard]] bool is_of_adapter(const std::string& name);

// Throws Error (BadInput) for a target that no block of the decoder has.
void check_adapters(const DecoderSettings& settings);

}  // namespace penstock
